"""What the documentation says holds: its suite runs, its commands exist, its pictures are committed."""

import re
from pathlib import Path

import yaml
from commands import ditbench

from ditbench.harness.store.store import RunStore
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import make_plan

ROOT = Path(__file__).parent.parent


def test_the_suite_in_the_documentation_plans(tmp_path):
    text = (ROOT / "docs" / "suites.md").read_text()
    block = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert block is not None
    (tmp_path / "s.yaml").write_text(block.group(1))
    plan = make_plan(load_suite(tmp_path / "s.yaml"))
    assert [cell.spec.cell for cell in plan.cells] == ["ddim-5", "ddim-10", "ddim-50", "guided"]
    assert plan.cells[-1].spec.timeout_s == 60 and plan.cells[-1].spec.guidance_interval == (200, 800)


def test_every_verb_in_the_readme_exists(tmp_path):
    verbs = set(re.findall(r"^ditbench (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert {"list", "flops", "time", "sample", "plan", "train"} <= verbs
    listed = ditbench("--help", cwd=tmp_path).stdout
    assert all(re.search(rf"\b{verb}\b", listed) for verb in verbs)


def test_links_and_pictures_of_the_readme_are_there():
    text = (ROOT / "README.md").read_text()
    targets = re.findall(r'\]\(([^)#]+)\)|src="([^"]+)"', text)
    for target in filter(None, (a or b for a, b in targets)):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_committed_results_are_complete_and_of_one_version_of_the_shipped_suite():
    for name, cells in (
        ("quick-cpu", 13),
        ("dit-cost-cpu", 27),
        ("dydit-time-cpu", 5),
        ("dydit-digits-cpu", 14),
        ("dydit-cost-cpu", 12),
        ("paper-dydit-cpu", 27),
        ("paper-flexidit-cpu", 24),
        ("flexidit-digits-cpu", 16),
        ("flexidit-time-cpu", 6),
        ("flow-digits-cpu", 22),
        ("adaptation-digits-cpu", 19),
    ):
        store = RunStore(ROOT / "results" / name)
        rows = store.cells()
        assert len(rows) == cells
        assert all(record.status == "ok" for records in rows.values() for record in records.values())
        assert yaml.safe_load((store.folder / "suite.yaml").read_text())["suite"] == store.plan()["suite"]
