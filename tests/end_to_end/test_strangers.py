"""A distribution with nothing but an entry point, and secrets that must be found nowhere."""

import os

from end_to_end.conftest import SMALL, bigopt, report_of, run_folder

PLUGIN = '''
"""Multiplies small weights away."""

import torch

from bigopt import Part


class Shrink(Part):
    """Sets the smallest weights of every layer to 0.

    Args:
        share: of the weights.
    """

    def __init__(self, share: float = 0.5) -> None:
        self.share = share

    def finish(self, run, fit):
        with torch.no_grad():
            for parameter in run.model.parameters():
                if parameter.ndim > 1:
                    limit = parameter.abs().flatten().kthvalue(max(1, int(self.share * parameter.numel()))).values
                    parameter[parameter.abs() <= limit] = 0
'''


def install(folder):
    """A distribution as an installer leaves it: a module, and metadata with one entry point."""
    (folder / "tiny_shrink.py").write_text(PLUGIN)
    info = folder / "tiny_shrink-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-shrink\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bigopt.compression]\nshrink = tiny_shrink:Shrink\n")


def test_the_entry_point_alone_is_enough(tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    install(site)
    env = {"PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
    listed = bigopt(tmp_path, "plugins", "compression", env=env)
    assert "shrink" in listed.stdout and "tiny-shrink" in listed.stdout and "share" in listed.stdout
    words = [*SMALL, "tracking=none", "compression=[shrink]", "compression.shrink.share=0.75"]
    done = bigopt(tmp_path, *words, "compression.shrink.recover.epochs=1", env=env)
    assert done.returncode == 0, done.stderr
    baseline, final = report_of(tmp_path)["stages"]
    assert final["plugin"] == "shrink"
    assert 0.2 < final["nonzero"] / baseline["nonzero"] < 0.3
    assert final["bytes"] == baseline["bytes"] and final["bytes_zip"] < 0.6 * baseline["bytes_zip"]
    wrong = bigopt(tmp_path, *SMALL, "compression=[shrink]", "compression.shrink.share=lots", env=env)
    assert wrong.returncode == 2
    assert "compression.shrink.share" in wrong.stderr and "float" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_secrets_are_found_nowhere(tmp_path):
    secrets = {"BIGOPT_TEST_TOKEN": "tok-3f9a77c1e2", "BIGOPT_TEST_PASSWORD": "pw-91bb02d4aa"}
    env = dict(secrets)
    server = "http://user:pw-91bb02d4aa@127.0.0.1:9/mlflow?token=${oc.env:BIGOPT_TEST_TOKEN}"
    done = bigopt(tmp_path, *SMALL, f"tracking.uri='{server}'", env=env)
    assert done.returncode == 0, done.stderr
    for secret in secrets.values():
        assert secret not in done.stdout and secret not in done.stderr
        for path in tmp_path.rglob("*"):
            assert secret not in path.name
            if path.is_file():
                assert secret.encode() not in path.read_bytes(), path
    assert run_folder(tmp_path).exists()
