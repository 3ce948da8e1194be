"""Write keys are random, and only their hashes are stored."""

from pipeline_platform.tenants.write_keys import hash_write_key, new_write_key


def test_keys_differ_and_have_256_bits() -> None:
    keys = {new_write_key() for _ in range(100)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {43}


def test_any_text_has_a_hash_of_32_bytes() -> None:
    assert {len(hash_write_key(text)) for text in ("", "k", "é", "\ud800", "\0")} == {32}
