"""What the kernel cannot keep a child from is told before a role starts, and limits come from the configuration."""

from __future__ import annotations

import pytest

from gateway.config.models import Codecs
from gateway.dicom.pixels.children import pool
from gateway.dicom.pixels.children.pool import Limits
from gateway.dicom.pixels.children.syscalls import filter_for
from gateway.preflight import machine


@pytest.mark.parametrize(("role", "told"), [("all", 1), ("worker", 1), ("restore", 1), ("ingress", 0)])
def test_the_check_warns_of_a_kernel_that_cannot_confine(monkeypatch, role, told):
    monkeypatch.setattr(
        machine, "unprotected", lambda: ("compressed frames are decoded ..., but there is no Landlock",)
    )
    findings = list(machine.try_codecs(role))
    assert [(finding.level, finding.path) for finding in findings] == [("warning", ("codecs",))] * told
    assert all("Landlock" in finding.message and "Linux" in finding.hint for finding in findings)


def test_limits_are_those_of_the_configuration(monkeypatch):
    assert Limits.of(Codecs()) == Limits(1 << 30, 2.0)
    assert Limits.of(Codecs(memory_mib=2048, frame_seconds=0.5, processes=3)) == Limits(2 << 30, 0.5, 3)
    monkeypatch.setattr(pool, "_limits", Limits())
    monkeypatch.setattr(pool, "_shared", None)
    first = pool.shared()
    pool.configure(Limits())
    assert pool.shared() is first  # unchanged: children that run go on
    pool.configure(Limits(processes=3))
    assert pool.shared() is not first
    pool.close()


def test_a_machine_whose_calls_have_unknown_numbers_is_not_filtered():
    assert filter_for("riscv64") is None
    for machine_name in ("x86_64", "aarch64"):
        program = filter_for(machine_name)
        assert program and len(program) % 8 == 0 and len(program) // 8 < 4096  # BPF_MAXINSNS
