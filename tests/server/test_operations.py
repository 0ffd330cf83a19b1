"""What readiness depends on."""

from breaking import filled, remount, small_disk
from squares import write_squares
from things import opened

from proxyprompt.server import operations
from proxyprompt.server.operations import readiness


def test_each_check_says_what_is_wrong(tmp_path, monkeypatch):
    with small_disk(tmp_path / "disk", 8) as disk:
        write_squares(disk / "studies")
        monkeypatch.setattr(operations, "LEAST_FREE", 1 << 20)
        versions = ["one"]
        checks = readiness(datastore=opened(disk / "studies"), folder=disk / "studies", versions=lambda: versions)
        assert {name: check() for name, check in checks.items()} == dict.fromkeys(("studies", "disk", "model"))
        versions.clear()
        assert "no version" in checks["model"]()
        with filled(disk, free_pages=10):
            assert "0 MB are free" in checks["disk"]()
        remount(disk, "ro")
        assert "cannot be written to" in checks["disk"]()
        assert checks["studies"]() is None  # they are still read
