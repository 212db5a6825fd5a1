"""`--cpu` tells where the time of the test suite goes."""

import re
import subprocess
import sys

from tests.processes import ENVIRONMENT

BUSY = """
import subprocess, sys

BURN = "import time\\nwhile time.process_time() < 0.3: pass"

def test_in_a_process_of_its_own():
    subprocess.run([sys.executable, "-c", BURN], check=True)

def test_nothing():
    pass
"""


def test_the_dearest_tests_are_shown_with_their_processes(tmp_path):
    """Files first, and each with what it has started."""
    (tmp_path / "test_busy.py").write_text(BUSY)

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.cpu", "--rootdir", tmp_path, "-c", "/dev/null", tmp_path],
        env={**ENVIRONMENT, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    shown = re.findall(r"^ +(\d+\.\d+) (\S+)$", done.stdout, flags=re.MULTILINE)
    file, dearest, cheapest = ((name, float(taken_s) >= 0.3) for taken_s, name in shown)
    assert ("test_busy.py", True) == file
    assert ("test_busy.py::test_in_a_process_of_its_own", True) == dearest
    assert ("test_busy.py::test_nothing", False) == cheapest
