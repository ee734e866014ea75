"""How the benchmark scripts come by matplotlib: from the running Python, or else in a virtual environment of their own."""
import pathlib
import subprocess
import sys
import venv


def with_matplotlib(work, already_measured):
    """Returns if matplotlib can be imported. Otherwise installs it under work/venv, runs this command again there with
    --only-plot, and exits with that run's code."""
    try:
        import matplotlib  # noqa: F401
        return
    except ImportError:
        pass
    python = work / "venv" / "bin" / "python"
    if python.exists() and pathlib.Path(sys.prefix) == work.absolute() / "venv":
        sys.exit("matplotlib cannot be imported in the virtual environment")
    if not python.exists():
        venv.create(work / "venv", with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "matplotlib"], check=True)
    again = sys.argv + ([] if already_measured else ["--only-plot"])
    sys.exit(subprocess.run([str(python), *again], stdout=subprocess.DEVNULL).returncode)
