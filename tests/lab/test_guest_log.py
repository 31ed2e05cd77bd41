"""The reader of the guest's serial line."""

from armferry.lab.guest import GuestLog, Loss, Tick

GREETING = b"armferry guest psci 1.1 cpus 2\n"


def _tick(number: int, rounds: int = 7) -> bytes:
    return f"tick {number:08} ok psci 1.1 pass {rounds:08}\n".encode()


def test_good_log() -> None:
    log = GuestLog.parse(GREETING + _tick(1) + _tick(2, 9) + b"tick 0000000")
    assert (log.psci, log.cpus, log.first, log.last) == ("1.1", 2, 1, 2)
    assert log.ticks == (Tick(1, "1.1", 7), Tick(2, "1.1", 9))
    assert log.faults() == ()


def test_empty_log() -> None:
    log = GuestLog.parse(b"")
    assert (log.psci, log.cpus, log.first, log.last, log.faults()) == ("", 0, 0, 0, ())


def test_loss_is_told_once() -> None:
    lost = b"LOST cpu 1 x21 got 0000000000000000 want 3131313131313131\n"
    log = GuestLog.parse(_tick(1) + b"tick 00000002 " + lost + b"tick 00000003 " + lost)
    assert log.losses[0] == Loss(2, 1, "x21", 0, 0x3131313131313131)
    assert log.faults()[0] == "lost cpu 1 x21: got 0x0000000000000000, want 0x3131313131313131"
    assert len(log.faults()) == 1


def test_gaps_repetitions_restarts_and_noise_are_faults() -> None:
    output = GREETING + _tick(1, 9) + _tick(3, 8) + _tick(3, 8) + b"EXCEPTION\n" + GREETING
    assert GuestLog.parse(output).faults() == (
        "tick 1 is followed by tick 3",
        "memory went from round 9 back to 8",
        "tick 3 is followed by tick 3",
        "the guest started again (1 times)",
        "unexpected line: EXCEPTION",
    )
