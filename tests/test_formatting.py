"""Numbers and hostile text as pages and terminal show them."""

from __future__ import annotations

from unlearnbench.reports.formatting import count, duration, number, p_value, pct, plain, points, power, signed, span


def test_numbers_read_well() -> None:
    assert [pct(value) for value in (0.1234, 0.0004, 0.0, 1.0)] == [
        f"{v}\u202f%" for v in ("12.3", "0.04", "0.0", "100.0")
    ]
    assert points(0.051) == "+5.1 points" and points(-0.051) == "\N{MINUS SIGN}5.1 points" and signed(0.1) == "+10.0"
    assert span((0.0, 0.0251)) == "0.0 to 2.5\u202f%"
    assert count(1234567) == "1\u202f234\u202f567" and power(0) == "0" and power(123456) == "123\u202f456"
    assert [number(value) for value in (3.0, 1 / 3, 1234.0, 0.98)] == ["3", "0.3", "1\u202f234", "1"]
    assert [p_value(value) for value in (0.00001, 0.0035, 0.5)] == ["< 0.0001", "0.0035", "0.5"]
    assert duration(12.34) == "12.3 s" and duration(130.4) == "2 min 10 s" and duration(7300) == "2 h 1 min"
    assert plain("a\u202eb\x00\n") == "a\\u{202e}b\\u{0}\n"
