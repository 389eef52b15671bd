"""Which tests run, and what each costs. docs/testing.md says how a test gets its marker."""

import os
import resource
import shutil
import signal

import pytest
from browsing import FLAGS

signal.signal(signal.SIGINT, signal.default_int_handler)  # which background jobs of a shell ignore, and their children
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which `nohup` ignores

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: with a worker per core, more threads only wait for cores


def pytest_addoption(parser):
    parser.addoption("--cpu-times", action="store_true", help="print the CPU seconds of each test, the dearest last")


def pytest_configure(config):
    """A test that is asked for by its name runs, however slow it is."""
    words = config.invocation_params.args
    if any("::" in str(word) for word in words) and "-m" not in words:
        config.option.markexpr = ""


def cpu_seconds():
    """CPU seconds of this process and of those that it started and that have ended."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    before = cpu_seconds()
    done = yield
    item.config.stash.setdefault(COSTS, {})[item.nodeid] = cpu_seconds() - before
    return done


COSTS = pytest.StashKey[dict[str, float]]()


def pytest_terminal_summary(terminalreporter, config):
    if config.getoption("--cpu-times"):
        for name, seconds in sorted(config.stash.get(COSTS, {}).items(), key=lambda one: one[1]):
            terminalreporter.write_line(f"{seconds:8.2f} {name}")


@pytest.fixture(scope="module")
def browser():
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI needs chromium: apt-get install chromium")
        pytest.skip("chromium is not installed")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=found, args=FLAGS.split())
        yield started
        started.close()
