"""The soak, in short; tests/soak/run.py runs for minutes or hours."""
import subprocess

from harness.paths import PYTHON, REPO


def test_soak():
    result = subprocess.run([PYTHON, REPO / "tests/soak/run.py", "--minutes", "0.35"], capture_output=True, text=True,
                            timeout=300)
    print(result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr
