"""Attacks on everything that reads what others wrote: `make fuzz`.

Each target is one function of bytes; its oracles are in the function: only named errors, equal
events however the bytes are cut, an identity rewrite byte for byte, an edit that changes only what
it says, both readers agree. Processor time for each byte and peak memory are watched by the driver.
"""
