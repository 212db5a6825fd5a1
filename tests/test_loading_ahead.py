"""`realize.concurrency.loading_ahead`: what a long run needs later is there, whatever is installed in the meantime."""

import sys

from twisted.internet.task import Clock

from realize.concurrency import loading_ahead
from realize.concurrency.loading_ahead import LOAD_AFTER_S, load_ahead
from tests.processes import printed


def test_modules_are_loaded_after_a_while(tmp_path, monkeypatch):
    """One that is not there is left to whoever needs it, and keeps back none of the others."""
    names = ["realize_test_first", "realize_test_second"]
    for each in names:
        (tmp_path / f"{each}.py").write_text("")
        monkeypatch.delitem(sys.modules, each, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    clock = Clock()

    load_ahead(clock, [names[0], "realize_test_missing", names[1]])
    clock.advance(LOAD_AFTER_S - 0.001)
    early = [each in sys.modules for each in names]
    clock.advance(0.001)

    assert ([False, False], [True, True]) == (early, [each in sys.modules for each in names])


def test_a_run_that_has_ended_loads_nothing(monkeypatch):
    """To give up twice, or when all is loaded, does nothing."""
    loaded = []
    monkeypatch.setattr(loading_ahead, "import_module", loaded.append)
    clock = Clock()

    give_up = load_ahead(clock, ["never"])
    give_up()
    give_up()
    load_ahead(clock, ["once"])
    clock.advance(LOAD_AFTER_S)

    assert (["once"], []) == (loaded, clock.getDelayedCalls())


def test_a_program_with_our_api_loads_nothing_late():
    """It may make short moves only for years, and none of these lasts until the rest is loaded."""
    code = (
        "import sys, realize.api\n"
        "from realize.runs.move_run import BEGINNING_AHEAD, KEEPING_AHEAD, LOADED_AHEAD\n"
        "later = {*BEGINNING_AHEAD, *KEEPING_AHEAD, *LOADED_AHEAD, 'realize.config.reading_moves'}\n"
        "print(later - sys.modules.keys())\n"
    )

    assert ["set()"] == printed(code)
