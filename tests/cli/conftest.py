"""What tests of bad input share."""

import pytest

from metacl.cli import main


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command in an empty folder; returns its exit code and all that it said, in one line."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return exit_.value.code, " ".join((captured.err + captured.out).split())

    return call
