"""Data types: what is written and what is listed, widths, byte orders, symbols."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userfw.nft import datatype_tables as types
from userfw.nft.datatype import Datatype, Names, Output
from userfw.nft.datatype_time import format_span, parse_span

NAMES = Names()
NAMES.utc_offset = 7200
OUT = Output(names=NAMES)
NUMBERS = [dtype for dtype in types.TYPES.values() if dtype.width and not dtype.is_string]


@pytest.mark.parametrize("dtype", NUMBERS, ids=lambda dtype: dtype.name)
@given(data=st.data())
def test_what_is_listed_reads_back(dtype: Datatype, data: st.DataObject) -> None:
    if dtype.name == "ct_label":
        value = 1 << data.draw(st.integers(0, 127))
    elif dtype.name == "time":
        value = data.draw(st.integers(0, 10**12))
    elif dtype.name == "hour":
        value = 60 * data.draw(st.integers(0, 1439))
    elif dtype.name == "day":
        value = data.draw(st.integers(0, 6))
    else:
        value = data.draw(st.integers(0, (1 << dtype.width) - 1))
    assert dtype.parse(dtype.format(value, OUT).strip('"'), NAMES) == value


@given(st.text(max_size=20))
def test_no_text_makes_a_type_fail_otherwise(text: str) -> None:
    for dtype in types.TYPES.values():
        try:
            dtype.parse(text, NAMES)
        except ValueError:
            continue


@given(st.integers(0, 10**14))
def test_spans_read_back(ms: int) -> None:
    assert parse_span(format_span(ms)) == ms


@pytest.mark.parametrize(
    ("dtype", "text", "value", "listed"),
    [
        (types.IPV4_ADDR, "10", 10, "0.0.0.10"),
        (types.IPV4_ADDR, "127.0.0.1", 0x7F000001, "127.0.0.1"),
        (types.IPV6_ADDR, "::1234:1234", 0x12341234, "::18.52.18.52"),
        (types.ETHER_ADDR, "0:f:54:c:11:4", 0x000F540C1104, "00:0f:54:0c:11:04"),
        (types.ETHER_TYPE, "vlan", 0x8100, "8021q"),
        (types.INET_PROTO, "icmpv6", 58, "ipv6-icmp"),
        (types.INET_SERVICE, "https", 443, "443"),
        (types.MARK, "12", 12, "0x0000000c"),
        (types.TC_HANDLE, "2271560481", 0x87654321, "8765:4321"),
        (types.CT_STATE, "new", 8, "new"),
        (types.CT_LABEL, "3", 8, "3"),
        (types.IFACE_INDEX, "lo", 1, '"lo"'),
        (types.DSCP, "0x38", 0x38, "cs7"),
        (types.DSCP, "4", 4, "0x04"),
        (types.ICMP_CODE, "port-unreachable", 3, "3"),
        (types.TIME, "30000ms", 30000, "30s"),
        (types.TIME, "1d2h3m4s", 93784000, "1d2h3m4s"),
        (types.DATE, "2019-06-21 17:00:00", 1561129200 * 10**9, '"2019-06-21 17:00:00"'),
        (types.HOUR, "17:00", 54000, '"17:00"'),
        (types.HOUR, "01:00", 82800, '"01:00"'),
        (types.DAY, "sat", 6, '"Saturday"'),
        (types.REALM, "0", 0, '"cosmos"'),
        (types.UID, "root", 0, "0"),
    ],
)
def test_examples(dtype: Datatype, text: str, value: int, listed: str) -> None:
    assert dtype.parse(text, NAMES) == value
    assert dtype.format(value, OUT) == listed


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        (types.IPV4_ADDR, "1.2.3.4.5"), (types.IPV6_ADDR, "192.168.3.8"), (types.INET_SERVICE, "65536"), (types.HOUR, "24:00"),
        (types.DAY, "Satturday"), (types.DAY, "7"), (types.DATE, "meh"), (types.CT_LABEL, "128"), (types.ETHER_ADDR, "1:2"),
        (types.IFNAME, ""), (types.IFNAME, "sixteen-letters-"), (types.CT_STATE, "xxx"), (types.TC_HANDLE, "1:12345"),
    ],
)  # fmt: skip
def test_refused(dtype: Datatype, text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        dtype.parse(text, NAMES)


def test_numeric_listing_shows_no_words() -> None:
    numeric = Output(numeric_proto=True, numeric_symbol=True, names=NAMES)
    assert types.INET_PROTO.format(6, numeric) == "6"
    assert types.ICMP_TYPE.format(8, numeric) == "8"
    assert types.INET_SERVICE.format(22, Output(service=True, names=NAMES)) == '"ssh"'
    assert types.UID.format(0, Output(guid=True, names=NAMES)) == '"root"'


def test_values_lie_in_registers_in_their_order() -> None:
    assert types.MARK.encode(0x11223344) == bytes.fromhex("44332211")
    assert types.INET_SERVICE.encode(0x0016) == bytes.fromhex("0016")
    assert types.IFNAME.encode(b"eth0") == b"eth0" + bytes(12)
    assert types.DSCP.octets == 1
    both = types.concat_type((types.IPV4_ADDR, types.INET_SERVICE))
    assert both.octets == 8
    assert both.id == types.IPV4_ADDR.id << 6 | types.INET_SERVICE.id
    assert both is types.concat_type((types.IPV4_ADDR, types.INET_SERVICE))


def test_bits_of_an_element_are_joined() -> None:
    joined = types.joined_type(types.TCP_FLAG)
    assert joined.format(0x12) == "syn | ack"
    assert types.TCP_FLAG.format(0x12) == "0x12"
    assert joined.same(types.TCP_FLAG)
