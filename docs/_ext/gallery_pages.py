"""A page per folder of committed results: how it was made, its pictures, its table, and its report beside it."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from algorithm_pages import RESULTS
from markup import below, code, table

from bench.analysis.results import Results, load
from bench.records.run import load_runs
from bench.report.outputs import outputs
from bench.report.write import write_study_page

PAGE = "report.html"


def files(folder: Path) -> Iterator[tuple[str, str | bytes]]:
    """Yield the page of every folder of results, its report and the list of all; ``folder`` has the parts by hand."""
    made = sections((RESULTS / "README.md").read_text(encoding="utf-8"))
    yield "_generated/faults.md", made.get("Faults", "")
    titles = []
    folders = sorted((path for path in RESULTS.iterdir() if path.is_dir()), key=_place)
    for results in folders:
        name, by_hand = results.name, folder / f"_{results.name}.md"
        words = by_hand.read_text(encoding="utf-8") if by_hand.is_file() else f"# {name}\n"
        titles.append((f"[{_title(words)}]({name}.md)", code(f"results/reference/{name}/")))
        compared = load(results) if (results / "summary.csv").is_file() else None
        report = _report(results, compared)
        if report:
            yield f"_generated/extra/gallery/{name}/{PAGE}", report
        parts = [words, f"## How it was made\n\n{made.get(name, '')}", _door(name) if report else ""]
        parts += [_comparison(name, compared)] if compared else map(_told, sorted(results.glob("*.md")))
        yield f"gallery/{name}.md", "\n".join(filter(None, parts))
    pages = "\n".join(path.name for path in folders)
    tree = f"```{{toctree}}\n:hidden:\n\n{pages}\n```\n"
    yield "_generated/gallery.md", f"{table(('results', 'folder'), titles)}\n{tree}"


def _place(results: Path) -> tuple[bool, bool, str]:
    """Return what folders are sorted by: the default comparison first, studies last."""
    return (results.name.startswith("study-"), results.name != "quick-cpu", results.name)


def sections(text: str) -> dict[str, str]:
    """Return what Markdown says under each of its headings of the second level."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return {title.strip(" /`"): body.strip() + "\n" for title, body in zip(parts[1::2], parts[2::2])}


def _title(words: str) -> str:
    return words.partition("\n")[0].lstrip("# ")


def _door(name: str) -> str:
    return f'Open <a href="{name}/{PAGE}">the whole report</a>: tables that sort, figures that show their values.\n'


def _comparison(name: str, results: Results) -> str:
    """Return the short table of a comparison, its verdicts and its pictures."""
    frame = results.table
    verdicts = []
    for outcome in results.outcomes:
        verdicts += [f"\n**{outcome.place}, {outcome.mode}**\n", *(f"- {text}" for text in outcome.sentences)]
    says = {one.name: one.says for one in outputs()}
    pictures = []
    for path in sorted((RESULTS / name / "plots").glob("*.svg")):
        alt = says.get(f"plots/{path.stem}", path.stem.replace("_", " "))
        pictures.append(f"![{alt}]({_relative(path)})\n")
    return "\n".join(
        [
            f"## Results\n\n{table(list(frame.columns), frame.itertuples(index=False))}",
            "## Verdicts\n",
            *verdicts,
            "\n## Pictures\n\n::::{container} pictures",
            *pictures,
            "::::\n",
        ]
    )


def _told(path: Path) -> str:
    """Return the page that a study has written, its headings a level lower and its pictures found from here."""
    text = below(1, path.read_text(encoding="utf-8"))
    return re.sub(r"\]\((?!https?:)([\w/.-]+)\)", lambda m: f"]({_relative(path.parent / m[1])})", text)


def _relative(path: Path) -> str:
    return f"../../{path.relative_to(RESULTS.parents[1]).as_posix()}"


def _report(results: Path, compared: Results | None) -> bytes | None:
    """Return the report.html of a folder, None where it is of a kind that has none."""
    if compared:
        (page,) = (one for one in outputs() if one.name == PAGE)
        return page.files(compared)[PAGE]
    study = results.name.removeprefix("study-")
    if not (results / f"{study}.md").is_file() or study == results.name:
        return None
    with tempfile.TemporaryDirectory() as made:  # nothing is written beside the committed files
        copy = Path(made)
        shutil.copy(results / f"{study}.md", copy)
        (copy / "plots").mkdir()
        for picture in results.glob("plots/*.png"):
            shutil.copy(picture, copy / "plots")
        write_study_page(copy, study, load_runs(results))
        return (copy / PAGE).read_bytes()
