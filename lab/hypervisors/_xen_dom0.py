"""A dom0 as the `xen` driver gets it: a host that is reached over SSH, and where `login.user` may run `xl`."""

from __future__ import annotations

from lab.hypervisors._reached_host import Maker, ReachedHost

Dom0 = ReachedHost

__all__ = ["Dom0", "Maker"]
