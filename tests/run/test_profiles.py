"""Shipped profiles with the tables that were measured on them."""

from nat2deploy.run.profiles import shipped_profiles, shipped_tables


def test_each_profile_has_the_tables_of_its_own_name_and_target():
    found = {one.profile.name: one.tables for one in shipped_profiles()}
    assert "nano-x86-1-thread" in found["x86-1-thread"]
    assert found["x86-1-thread-int8"] and not set(found["x86-1-thread-int8"]) & set(found["x86-1-thread"])
    # The same target in words, on another device.
    assert found["android-big-core"] == found["raspberry-pi-5"] == ()
    assert list(found) == sorted(found)


def test_a_table_of_another_target_is_none_of_the_profiles():
    (profile,) = (one.profile for one in shipped_profiles() if one.profile.name == "x86-1-thread")
    other = profile.model_copy(update={"target": profile.target.model_copy(update={"batch": 8})})
    assert shipped_tables(other) == ()
