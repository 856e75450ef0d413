"""`metacl doctor` on machines where things are missing: it says so, and fails only for what is needed."""

import importlib
import sys

import pytest

from metacl import doctor
from metacl.cli import main
from metacl.learners import pretrained


def code_of(*arguments):
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    return exit_.value.code


def by_name():
    return {finding.what: finding for finding in doctor.check_up()}


def test_all_is_well_here(capsys):
    assert code_of("doctor") == 0
    said = capsys.readouterr().out
    assert "deepspeed" in said and "could be built" in " ".join(said.split())


@pytest.mark.parametrize("name", ["torch", "psutil", "peft"])
def test_a_package_that_is_not_there(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(doctor, "NEEDED", (name,))
    finding = by_name()[name]
    assert finding.needed and finding.remedy.startswith(f"pip install {name}")
    assert code_of("doctor") == 3


def test_absent_and_broken_are_told_apart(monkeypatch):
    def load(name):
        if name == "higher":
            raise ModuleNotFoundError("No module named 'higher'", name="higher")
        if name == "peft":
            raise OSError("libx.so: cannot open\nmore")
        return real(name)

    real = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", load)
    found = by_name()
    assert found["higher"].found == "not installed"
    assert found["peft"].found == "broken: libx.so: cannot open"
    assert not found["torch"].remedy


def test_weights_that_are_not_here_are_no_failure(monkeypatch, capsys):
    monkeypatch.setitem(pretrained.PACKAGED, "nobody/nothing", ("no_such_package", "model", "0"))
    finding = by_name()["nobody/nothing"]
    assert "hub" in finding.found and "no-such-package" in finding.remedy
    assert code_of("doctor") == 0


def test_weights_in_the_hubs_cache_are_here(monkeypatch, tmp_path):
    monkeypatch.setitem(pretrained.PACKAGED, "nobody/nothing", ("no_such_package", "model", "0"))
    monkeypatch.setattr(pretrained, "snapshot_download", lambda *_args, **_kwargs: str(tmp_path))
    assert by_name()["nobody/nothing"].found == "offline, in the hub's local cache"
