"""`--precision auto` takes what is fastest on the machine, and says why."""

import pytest

from keras_cifar.machine import pick_precision, precision_of_cpu, precision_of_gpu


@pytest.mark.parametrize(
    ("flags", "vendor", "precision", "reason"),
    [
        ({"avx512_bf16"}, "AuthenticAMD", "bfloat16", "the CPU has avx512_bf16"),
        (
            {"avx512_bf16"},
            "GenuineIntel",
            "float32",
            "faster than avx512_bf16 on this CPU, which has no amx_bf16",
        ),
        ({"avx512_bf16", "amx_bf16"}, "GenuineIntel", "bfloat16", "the CPU has amx_bf16"),
        ({"avx2"}, "AuthenticAMD", "float32", "the CPU has neither amx_bf16 nor avx512_bf16"),
        (set(), "", "float32", "the CPU has neither amx_bf16 nor avx512_bf16"),
    ],
)
def test_a_cpu_gets_bfloat16_where_it_is_faster(flags, vendor, precision, reason):
    assert precision_of_cpu(frozenset(flags), vendor=vendor) == (precision, reason)


@pytest.mark.parametrize(
    ("capability", "precision"),
    [((9, 0), "bfloat16"), ((8, 0), "bfloat16"), ((7, 5), "float16"), ((6, 1), "float32")],
)
def test_a_gpu_gets_what_its_tensor_cores_take(capability, precision):
    version = ".".join(map(str, capability))
    expected = (precision, f"the GPU has compute capability {version}")
    assert precision_of_gpu(capability) == expected


def test_this_machine_gets_one_of_them():
    precision, reason = pick_precision()
    assert precision in ("float32", "bfloat16", "float16")
    assert reason
