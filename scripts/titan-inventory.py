#!/usr/bin/env python3
"""Prints examples/inventory.csv: two admins and 512 servers with made-up, unique values."""


def mac(kind: int, index: int) -> str:
    return f"02:4e:46:{kind:02x}:{index >> 8:02x}:{index & 255:02x}"


def guid(port: int, index: int) -> str:
    return f"0c42a103{port:04x}{index:04x}"


print("name,mac.mgmt,guid.fab0,guid.fab1,serial,bmc_ip,room")
for index in range(1, 3):
    print(f"adm{index},{mac(1, index)},,,TTNADM{index},10.30.0.{10 + index},R1")
for index in range(1, 513):
    address = f"10.30.{1 + index // 256}.{index % 256}"
    print(
        f"srv{index:03},{mac(2, index)},{guid(0, index)},{guid(1, index)},"
        f"TTNSRV{index:03},{address},R{1 + (index - 1) // 256}"
    )
