#!/usr/bin/env python3
"""Checks our HDF5 files against h5py, which shares no code with core/hdf5: what we write it reads, what it writes we read.

    tests/h5py_check.py TEST_BINARY INSPECT     e.g. build/emu/bin/test_core build/emu/bin/inspect (needs h5py, numpy, xxhash)
"""
import os
import re
import subprocess
import sys
import tempfile

import h5py
import numpy as np


def check_written_by_us(binary, path):
    env = dict(os.environ, H5PY_CHECK=path)
    subprocess.run([binary, "--gtest_filter=Hdf5Writer.FileForAnotherReader"], env=env, check=True, stdout=subprocess.DEVNULL)
    with h5py.File(path, "r") as f:
        g = f["all"]
        for name, kind in dict(f32="f4", f64="f8", i8="i1", i16="i2", i32="i4", i64="i8", u8="u1", u16="u2", u32="u4", u64="u8").items():
            expected = (np.arange(120, dtype=np.int64) * 3 - 60).astype("<" + kind).reshape(2, 3, 4, 5)
            d = g[name]
            assert d.dtype == np.dtype("<" + kind), (name, d.dtype)
            assert np.array_equal(d[...], expected), name
        words = np.empty((256, 256), np.uint16)
        d = g["bf16"]
        d.id.read(h5py.h5s.ALL, h5py.h5s.ALL, words, d.id.get_type())
        assert np.array_equal(words.ravel(), np.arange(65536, dtype=np.uint16))
        values, expected = d[...].astype(np.float32).ravel(), (np.arange(65536, dtype=np.uint32) << 16).view(np.float32)
        nan = np.isnan(expected)
        assert np.isnan(values[nan]).all() and np.array_equal(values[~nan].view(np.uint32), expected[~nan].view(np.uint32))
        assert g["none"].shape == (0, 3)
        off = g["names_off"][...]
        text = bytes(g["names"][...])
        assert [text[a:b].decode() for a, b in zip(off[:-1], off[1:])] == ["gr\u00fc\u00df", "", "z"]

        def string(x):
            return x.decode() if isinstance(x, bytes) else x

        assert string(g.attrs["text"]) == "gr\u00fc\u00df" and string(g.attrs["empty"]) == ""
        assert g.attrs["int"] == -5 and g.attrs["uint"] == 2**64 - 1 and g.attrs["double"] == 0.1
        assert list(g.attrs["list"]) == [0.5, -1]
        assert string(f.attrs["format"]) == "modrwkv.dataset" and f.attrs["format_major"] == 1
        try:
            import xxhash
        except ImportError:
            print("xxhash is not installed: hashes are not compared")
        else:
            for name, d in g.items():
                raw = words.tobytes() if name == "bf16" else d[...].tobytes()
                assert xxhash.xxh64(raw, seed=0).intdigest() == d.attrs["xxh64"], name


def check_written_by_h5py(inspect, path):
    rng = np.random.default_rng(1)
    floats = rng.normal(size=(30, 7)).astype(np.float32)
    halves = rng.normal(size=50).astype(np.float16)
    shown = {}
    with h5py.File(path, "w") as f:
        f.attrs["format"] = "modrwkv.dataset"  # variable-length string, int64: as Python writes them
        f.attrs["format_major"] = 1
        f.attrs["kind"] = "series"

        def put(name, array, values=None, **options):
            f.create_dataset(name, data=array, **options)
            shown["/" + name] = np.asarray(array if values is None else values, np.float64)

        put("ts/plain", floats)
        put("ts/chunked", floats, chunks=(4, 7))
        put("ts/checked", floats, chunks=(4, 7), fletcher32=True)
        put("ts/big_endian", floats.astype(">f4"))
        put("ts/half", halves)
        put("ts/doubles", floats.astype(np.float64))
        put("ts/ids", np.arange(-5, 100, dtype=np.int64))
        words = (floats.view(np.uint32) >> 16).astype(np.uint16)
        put("ts/bf16", words, (words.astype(np.uint32) << 16).view(np.float32))
        f["ts/bf16"].attrs["dtype"] = "bf16"
    out = subprocess.run([inspect, path], check=True, capture_output=True, text=True).stdout
    for name, values in shown.items():
        line = re.search(rf"^  {re.escape(name)} .*min (\S+)  mean (\S+)  max (\S+)", out, re.M)
        assert line, (name, out)
        got = np.array([float(x) for x in line.groups()])
        assert np.allclose(got, [values.min(), values.mean(), values.max()], rtol=1e-5, atol=1e-7), (name, got)
    with h5py.File(path, "a") as f:
        f.create_dataset("ts/packed", data=floats, compression="gzip")
    refused = subprocess.run([inspect, path], capture_output=True, text=True)
    assert refused.returncode == 1 and "filter 1" in refused.stderr and refused.stderr.count("\n") == 1, refused


def main():
    binary, inspect = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as folder:
        check_written_by_us(binary, os.path.join(folder, "ours.h5"))
        check_written_by_h5py(inspect, os.path.join(folder, "theirs.h5"))
    print(f"h5py {h5py.__version__} with HDF5 {h5py.version.hdf5_version} agrees")


if __name__ == "__main__":
    main()
