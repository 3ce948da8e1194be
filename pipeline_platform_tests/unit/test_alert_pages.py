"""Each kind of alert has its runbook, with its four questions, and its next command is one of the page's."""

import re
from pathlib import Path

import pytest

from pipeline_platform.watch.alerts.catalogue import CATALOGUE, AlertKind

# Whatever page it stands in, test_docs.py follows each command to its options.
_RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"
_QUESTIONS = ["What it means", "What to look at", "What to type", "How to know that it is over"]


@pytest.mark.parametrize("about", CATALOGUE.values(), ids=CATALOGUE)
def test_each_alert_has_a_runbook_that_answers_the_four_questions(about: AlertKind) -> None:
    page = (_RUNBOOKS / about.page).read_text()
    assert page.startswith(f"# {about.title}\n")
    assert re.findall("^## (.+)$", page, re.MULTILINE) == _QUESTIONS
    answers = re.split("^## .+$", page, flags=re.MULTILINE)[1:]
    assert all(answer.strip() for answer in answers)
    command = re.sub(r" --\w+ \{\w+\}| \{\w+\}", "", about.next_command)
    assert command in answers[2] or command in answers[3], f"{command} is not in {about.page}"


def test_each_page_is_of_an_alert_and_in_the_list() -> None:
    pages = {page.name for page in _RUNBOOKS.glob("*.md")} - {"README.md"}
    assert pages == {about.page for about in CATALOGUE.values()}
    listed = (_RUNBOOKS / "README.md").read_text()
    for about in CATALOGUE.values():
        assert f"| [`{about.kind}`]({about.page}) | {about.severity} | {about.title} |" in listed
