"""Settings as text.

What is printed is read again, folders have names of their own, flags change fields.
"""

import dataclasses
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coherence.lab.experiment import load
from coherence.lab.settings import (
    CNN,
    MLP,
    Decays,
    Networks,
    Probing,
    StoppingRules,
    any_of,
    apply_flags,
    check,
    digits,
    explain,
    l1_decay,
    max_steps,
    mnist,
    npz,
    parse,
    patience,
    plain,
    setting,
    sgd,
    sms_spam,
    variant,
    winsorize,
)
from coherence.lab.training import Classification
from coherence.probes import Epochs, LogSpaced

ROOT = Path(__file__).resolve().parents[3]


@dataclasses.dataclass(frozen=True)
class HeldOut:
    data: digits | mnist = digits()
    share: float = 0.2


@dataclasses.dataclass(frozen=True)
class Brief:
    model: MLP | CNN = MLP(4)
    steps: int = 3


@dataclasses.dataclass(frozen=True)
class Settings:
    data: digits | mnist | npz | HeldOut = digits()
    brief: Brief = Brief()
    probes: tuple[Probing, ...] = ()
    rates: tuple[float, ...] = (0.1,)
    decay: Decays | None = None
    note: str = ""
    steps: int = 7
    seeds: int = 2


DEFAULT = Settings()
CHANGED = Settings(
    data=HeldOut(mnist(100), share=1 / 3),
    brief=Brief(CNN(2, shape=(8, 8, 1)), steps=9),
    probes=(Probing(when=Epochs(0.5), name="it's"), Probing(of="test")),
    rates=(1e-5, math.inf, -math.inf, -2.0),
    decay=l1_decay(1e-3),
    note='a "b"\n',
)


@pytest.mark.parametrize("settings", [DEFAULT, CHANGED, Classification(), HeldOut()], ids=str)
def test_what_is_printed_is_read_again(settings):
    assert parse(repr(settings), type(settings)) == settings


def test_a_class_that_no_field_names_is_read_where_the_type_names_it():
    run = Classification(data=HeldOut(share=0.5))
    with pytest.raises(ValueError, match="'HeldOut' is none of"):
        parse(repr(run), Classification)
    assert parse(repr(run), Classification | HeldOut) == run


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.py")), ids=lambda p: p.stem)
def test_every_preset_and_every_arm_is_read_again(path):
    module = load(path)
    own = [x for x in vars(module).values() if isinstance(x, type) and dataclasses.is_dataclass(x)]
    for preset in module.PRESETS.values():
        assert parse(repr(preset), type(preset)) == preset
        arms = module.arms(preset).values()
        for arm in {type(arm): arm for arm in arms}.values():
            kind = type(arm)
            for choice in own:
                kind |= choice
            assert parse(repr(arm), kind) == arm
            assert json.loads(json.dumps(plain(arm)))["kind"] == type(arm).__name__


def half(view): ...


def test_functions_are_read_by_name():
    one = dataclasses.replace(DEFAULT, probes=(Probing(quantities=("m_coherence", half)),))
    assert "quantities=('m_coherence', half,)" in repr(one)
    assert parse(repr(one), Settings) == one
    alone = dataclasses.replace(DEFAULT, probes=(Probing(quantities=(half,)),))
    assert "quantities=(half,)" in repr(alone)
    assert parse(repr(alone), Settings) == alone
    with pytest.raises(ValueError, match="'quarter' is none of"):
        parse(repr(one).replace("half", "quarter"), Settings)


@given(c=st.floats(0, 50), learning_rate=st.floats(0, allow_infinity=False), words=st.integers(1))
def test_any_number_is_read_again(c, learning_rate, words):
    for choice in (winsorize(c), sgd(learning_rate), sms_spam(words)):
        assert parse(repr(choice), type(choice)) == choice


def test_a_setting_is_read_as_it_is_typed():
    assert parse("mlp(width=64, depth=2)", Networks) == MLP(64, 2)
    assert parse(" CNN(8, shape=[8, 8, 1]) ", Networks) == CNN(8, shape=(8, 8, 1))
    assert parse("MLP", Networks) == MLP()
    assert parse("None", Decays | None) is None
    assert parse("(Probing(m=7), Probing)", tuple[Probing, ...]) == (Probing(m=7), Probing())
    stopping = parse("any_of(patience(3), max_steps(steps=9))", StoppingRules)
    assert stopping == any_of(patience(3), max_steps(9))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "Perceptron",
            r"'Perceptron' is none of MLP\(width, .*, activation, residual\), CNN\(width, ",
        ),
        ("1 +", r"'1 \+' is none of MLP\("),
        ("", "'' is none of MLP"),
        ("1", r"'1': a setting: .* got 1\."),
        ("[]", r"'\[\]' is none of MLP"),
        ("__import__('os').system('ls')", "is none of MLP"),
        ("MLP(colour=1)", r"MLP\(width, depth, .*\): got an unexpected .* 'colour'"),
        ("MLP('wide')", r"MLP\(width\): a whole number, got 'wide'"),
        ("MLP(1 + 1)", r"'1 \+ 1' is no plain value"),
        ("MLP(**{})", "got an unexpected|keywords must be strings|is no plain value"),
        ("MLP(width=digits())", "'digits' is none of"),
    ],
)
def test_what_is_no_such_setting_is_refused_in_one_line(text, said):
    with pytest.raises(ValueError, match=said):
        parse(text, MLP | CNN)


def test_options_that_say_nothing_are_left_out():
    assert plain(mnist()) == {"kind": "mnist"}
    assert plain(mnist(7)) == {"kind": "mnist", "examples": 7}
    assert plain(CHANGED.brief) == {
        "kind": "Brief",
        "model": {"kind": "CNN", "width": 2, "depth": 3, "shape": [8, 8, 1]},
        "steps": 9,
    }


# Names of folders.


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "cpu"),
        ({"seeds": 9}, "cpu"),
        ({"steps": 100}, "cpu,steps=100"),
        ({"brief": Brief(steps=100)}, "cpu,brief.steps=100"),
        ({"brief": Brief(MLP(8))}, "cpu,brief.model.width=8"),
        ({"brief": Brief(CNN(8))}, "cpu,brief.model=CNN-8-3"),
        ({"data": mnist(100), "rates": (0.1, 1e-5)}, "cpu,data=mnist-100,rates=0.1+1e-05"),
        ({"data": HeldOut()}, "cpu,data=HeldOut-digits-0.2"),
        ({"decay": l1_decay(0.1)}, "cpu,decay=l1_decay-0.1"),
    ],
)
def test_a_folder_is_named_by_the_whole_path_of_what_differs(changes, name):
    assert variant("cpu", dataclasses.replace(DEFAULT, **changes), DEFAULT) == name


def test_different_settings_have_different_folders():
    changes = [
        *({"data": npz(path)} for path in ("a/b.npz", "a-b.npz", "a b.npz")),
        *({"note": note} for note in ("a", "a,b", "a+b", "a-b", "ä" * 300, "ä" * 300 + "b")),
        {"probes": (Probing(name="x"), Probing(m=3, name="y"))},
        {"probes": (Probing(name="x"), Probing(m=3, name="z"))},
        {"brief": Brief(steps=100)},
        {"steps": 100},
        *({"data": sms_spam(*words)} for words in ((None,), (5,))),
    ]
    names = [variant("cpu", dataclasses.replace(DEFAULT, **change), DEFAULT) for change in changes]
    assert len({name.lower() for name in names}) == len(changes)
    for name in names:
        assert "/" not in name
        assert len(name.encode()) <= 255


def test_one_option_is_not_taken_for_another():
    limits = setting(limit)
    names = [
        variant("cpu", dataclasses.replace(DEFAULT, note=limits(**given)), DEFAULT)
        for given in ({"low": 1}, {"high": 1}, {"low": 1, "high": 2}, {})
    ]
    assert len(set(names)) == 4


def limit(low: int | None = None, high: int | None = None) -> None: ...


# Flags.


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data", "mnist(examples=100)"], {"data": mnist(100)}),
        (["--data", "HELDOUT"], {"data": HeldOut()}),
        (["--steps", "8", "--rates", "1", "2"], {"steps": 8, "rates": (1.0, 2.0)}),
        (["--brief.steps", "8"], {"brief": Brief(steps=8)}),
        (["--brief.model", "CNN(8)"], {"brief": Brief(CNN(8))}),
        (["--probes", "(Probing(m=9),)"], {"probes": (Probing(m=9),)}),
        (["--decay", "l1_decay(0.1)"], {"decay": l1_decay(0.1)}),
        (["--decay", "None"], {}),
    ],
)
def test_a_flag_changes_its_field(arguments, expected):
    assert apply_flags(DEFAULT, arguments, "test") == dataclasses.replace(DEFAULT, **expected)


def test_a_mistake_in_a_flag_is_said(capsys):
    with pytest.raises(SystemExit) as stop:
        apply_flags(DEFAULT, ["--brief.model", "MLP(colour=1)"], "test")
    assert stop.value.code == 2
    words = " ".join(capsys.readouterr().err.replace("│", " ").split())
    fields = "width, depth, initializer, activation, residual"
    assert f"MLP({fields}): got an unexpected keyword argument 'colour'" in words


def test_choices_are_explained():
    lines = explain(Settings).splitlines()
    assert any(line.startswith("mnist: 60,000") for line in lines)
    assert "    width=256  Units in each hidden layer." in lines
    assert (
        "    rate  the factor of the penalty in the objective, >= 0, or a schedule of it." in lines
    )
    assert sum(line.startswith("MLP:") for line in lines) == 1


# Checks.


def test_a_refused_value_is_named_by_its_whole_path():
    check(DEFAULT)
    refused = dataclasses.replace(DEFAULT, brief=Brief(MLP(0)))
    with pytest.raises(ValueError, match=r"^brief\.model=MLP\(width=0, .*width is at least 1"):
        check(refused)
    held_out = dataclasses.replace(DEFAULT, data=HeldOut(mnist(0)))
    with pytest.raises(ValueError, match=r"^data\.data=mnist\(examples=0\): mnist\(examples\): "):
        check(held_out)
    with pytest.raises(ValueError, match=r"^data=npz\(path='nowhere\.npz'\): .* no file nowhere"):
        check(dataclasses.replace(DEFAULT, data=npz("nowhere.npz")))


def test_a_schedule_is_a_plain_value_too():
    assert parse("LogSpaced(per_decade=2)", LogSpaced | Epochs) == LogSpaced(2)
