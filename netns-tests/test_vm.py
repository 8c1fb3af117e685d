"""Namespace tests that need a kernel with everything, run once more on a stock Debian kernel in a virtual machine."""

import re

from lab import vm

EBPF = "veth tun nf_conntrack nft_chain_nat nft_masq nft_ct cls_bpf sch_ingress"
FLOWER = "cls_flower cls_bpf act_pedit act_csum act_ct nf_conntrack_netlink act_mirred act_vlan act_skbedit veth tun nf_tables"
SOME = "flower and (route or neighbour or rules or reset or fin)"
FLOWTABLE = "nf_flow_table nft_flow_offload nf_flow_table_inet tun veth nf_conntrack nft_chain_nat"


def test_flowtables_beside_the_kernels() -> None:
    """The same frames from this flowtable and the kernel's own, byte for byte: no test is skipped for want of flowtables."""
    vm.needed()
    done = vm.pytest_in_guest("netns-tests/test_flowtable.py", modules=FLOWTABLE)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|skipped)", done.stdout)}
    assert counts["passed"] >= 14 and "skipped" not in counts, done.stdout[-2000:]


def test_flowtables_over_a_bridge_beside_the_kernels() -> None:
    """Which packets a flowtable takes whose flows cross a bridge: what is expected of userfw, outside, is what the kernel does."""
    vm.needed()
    done = vm.pytest_in_guest("netns-tests/test_bridge_flowtable.py", "--router=kernel", modules=f"{FLOWTABLE} bridge")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|skipped)", done.stdout)}
    assert counts["passed"] == 11, done.stdout[-2000:]


def test_what_invalidates_flows_in_flower() -> None:
    """With traffic running and every packet accounted for, on tc flower; the other cases (`-k flower`) pass too, but take long."""
    vm.needed()
    done = vm.pytest_in_guest("netns-tests/test_invalidation.py", "-k", SOME, modules=FLOWER, seconds=280)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"(\d+) passed", done.stdout) and "skipped" not in done.stdout, done.stdout[-2000:]


def test_the_ebpf_driver_where_tcx_is_missing() -> None:
    """Linux 6.1: the program at tc is a filter of clsact; its verifier takes stateless filters too. And, in the same machine, flows
    over a bridge by tc flower."""
    vm.needed()
    files = [f"netns-tests/test_{name}.py" for name in ("offload", "bpf_chains", "bpf_filters", "bridged_flows")]
    chosen = "kernel_forwards or tags or before_filters or (flower and whole)"
    done = vm.pytest_in_guest(*files, "-k", chosen, modules=f"{EBPF} {FLOWER}")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|skipped)", done.stdout)}
    assert counts == {"passed": 6}, done.stdout[-2000:]
