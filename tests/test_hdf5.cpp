// HDF5 files: what the writer makes is what the library reads; what the library makes is read or refused by
// name.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <xxhash.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>

#include "core/error.h"
#include "core/files.h"
#include "core/hdf5.h"
#include "tests/raw_hdf5.h"
#include "tests/run_program.h"

namespace modrwkv {
namespace {

using testing::creation_list;
using testing::must;
using testing::RawFile;
using testing::refusal;
using testing::TemporaryFolder;

std::vector<uint16_t> all_words() {
  std::vector<uint16_t> words(65536);
  std::iota(words.begin(), words.end(), uint16_t(0));
  return words;
}

Tensor all_bf16() {
  Tensor t = Tensor::empty({256, 256}, DType::bf16);
  memcpy(t.raw(), all_words().data(), t.bytes());
  return t;
}

// A dataset of a finished file as the library reads it.
template <class T>
std::vector<T> read_raw(const std::string& path, const char* name, hid_t memory) {
  const hid_t f = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), d = H5Dopen2(f, name, H5P_DEFAULT);
  const hid_t s = H5Dget_space(d), stored = H5Dget_type(d);
  std::vector<T> values(size_t(H5Sget_simple_extent_npoints(s)));
  must(H5Dread(d, memory < 0 ? stored : memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) >= 0);
  H5Tclose(stored), H5Sclose(s), H5Dclose(d), H5Fclose(f);
  return values;
}

// ---------------------------------------------------------------- the writer, judged by the library

TEST(Hdf5Writer, LibraryReadsWhatWasWritten) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.h5";
  const std::vector<float> floats{1.5f, -2, 0, 3e38f, 1e-40f, NAN};
  FileWriter file(path, "modrwkv.dataset", "series");
  file.write("/ts/blob", Tensor::from(floats, {2, 3}));
  file.write_vector<uint64_t>("/ts/off", {0, 6});
  file.write_vector<int8_t>("/small/i8", {-128, 127});
  file.write_vector<uint16_t>("/small/u16", {0, 65535});
  file.write_vector<int64_t>("/small/i64", {INT64_MIN, INT64_MAX});
  file.write_vector<double>("/small/f64", {0.1});
  file.write_strings("/ts/names", {"HUFL", "", "OT"});
  file.set_attribute("/ts", "pi", 3.25);
  file.set_attribute("/ts/blob", "unit", "kW");
  file.commit();

  const auto back = read_raw<float>(path, "/ts/blob", H5T_NATIVE_FLOAT);
  EXPECT_EQ(memcmp(back.data(), floats.data(), 24), 0);
  EXPECT_EQ(read_raw<uint64_t>(path, "/ts/off", H5T_NATIVE_UINT64), (std::vector<uint64_t>{0, 6}));
  EXPECT_EQ(read_raw<int8_t>(path, "/small/i8", H5T_NATIVE_INT8), (std::vector<int8_t>{-128, 127}));
  EXPECT_EQ(read_raw<uint16_t>(path, "/small/u16", H5T_NATIVE_UINT16), (std::vector<uint16_t>{0, 65535}));
  EXPECT_EQ(read_raw<int64_t>(path, "/small/i64", H5T_NATIVE_INT64),
            (std::vector<int64_t>{INT64_MIN, INT64_MAX}));
  EXPECT_EQ(read_raw<double>(path, "/small/f64", H5T_NATIVE_DOUBLE), std::vector<double>{0.1});
  EXPECT_EQ(read_raw<char>(path, "/ts/names", H5T_NATIVE_CHAR),
            (std::vector<char>{'H', 'U', 'F', 'L', 'O', 'T'}));
  EXPECT_EQ(read_raw<uint64_t>(path, "/ts/names_off", H5T_NATIVE_UINT64), (std::vector<uint64_t>{0, 4, 4, 6}));

  const hid_t f = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t a = H5Aopen_by_name(f, "/ts/blob", "xxh64", H5P_DEFAULT, H5P_DEFAULT);
  uint64_t hash = 0;
  must(H5Aread(a, H5T_NATIVE_UINT64, &hash) >= 0);
  EXPECT_EQ(hash, XXH64(floats.data(), 24, 0));
  H5Aclose(a);
  const hid_t set = H5Dopen2(f, "/ts/blob", H5P_DEFAULT), plist = H5Dget_create_plist(set);
  EXPECT_EQ(H5Pget_layout(plist), H5D_CONTIGUOUS);
  EXPECT_EQ(H5Pget_nfilters(plist), 0);
  H5Pclose(plist), H5Dclose(set), H5Fclose(f);
}

TEST(Hdf5Writer, EveryBf16WordSurvives) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.h5";
  {
    FileWriter file(path, "modrwkv.model", "x");
    file.write("/tensors/w", all_bf16());
    file.commit();
  }
  EXPECT_EQ(read_raw<uint16_t>(path, "/tensors/w", -1), all_words());  // raw words: nothing was converted
  const auto floats = read_raw<float>(path, "/tensors/w", H5T_NATIVE_FLOAT);
  for (uint32_t word = 0; word < 65536; ++word) {
    const uint32_t bits = word << 16;
    float expected;
    memcpy(&expected, &bits, 4);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(floats[word])) << word;
    } else {
      EXPECT_EQ(memcmp(&expected, &floats[word], 4), 0) << word;
    }
  }
  const Tensor back = FileReader(path).read("/tensors/w", DType::bf16, {256, 256});
  EXPECT_EQ(memcmp(back.raw(), all_words().data(), back.bytes()), 0);
}

TEST(Hdf5Writer, HalfFloatsAreIeeeHalf) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.h5";
  const std::vector<uint16_t> words{0x3c00, 0xc000, 0x7bff, 0x0001, 0x7c00};
  {
    Tensor t = Tensor::empty({5}, DType::f16);
    memcpy(t.raw(), words.data(), 10);
    FileWriter file(path, "modrwkv.model", "x");
    file.write("/tensors/w", t);
    file.commit();
  }
  EXPECT_EQ(read_raw<float>(path, "/tensors/w", H5T_NATIVE_FLOAT),
            (std::vector<float>{1, -2, 65504, 5.9604645e-8f, INFINITY}));
  EXPECT_EQ(FileReader(path).info("/tensors/w").type, ElementType::f16);
}

TEST(Hdf5Writer, LargeSetsStartAtPagesAndAreWrittenInPieces) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.h5";
  std::vector<uint8_t> bytes((size_t(65) << 20) + 12345);  // above 64 MiB: has a table of hashes
  std::mt19937 random(1);
  for (size_t i = 0; i < bytes.size(); i += 4093) bytes[i] = uint8_t(random());
  {
    FileWriter file(path, "modrwkv.dataset", "text");
    file.create("/img/blob", ElementType::u8, {bytes.size()});
    file.create("/img/hw", ElementType::u32, {2, 2});
    for (size_t at = 0; at < bytes.size();) {
      const size_t n = std::min(bytes.size() - at, size_t(3000017));
      file.append("/img/blob", bytes.data() + at, n);
      at += n;
    }
    const uint32_t hw[] = {1, 2, 3, 4};
    file.append("/img/hw", hw, sizeof hw);
    EXPECT_EQ(file.hash_of("/img/blob"), XXH64(bytes.data(), bytes.size(), 0));
    EXPECT_EQ(*file.offset_of("/img/blob") % 4096, 0u);
    file.commit();
  }
  const FileReader file(path);
  EXPECT_EQ(file.read_vector<uint8_t>("/img/blob"), bytes);
  const auto table = file.read_vector<uint64_t>("/img/blob.h");
  ASSERT_EQ(table.size(), 66u);
  EXPECT_EQ(table[3], XXH64(bytes.data() + (size_t(3) << 20), size_t(1) << 20, 0));
  EXPECT_EQ(table[65], XXH64(bytes.data() + (size_t(65) << 20), 12345, 0));
}

TEST(Hdf5Writer, SameContentGivesTheSameBytes) {
  const TemporaryFolder folder;
  for (const char* name : {"a.h5", "b.h5"}) {
    FileWriter file(folder / name, "modrwkv.dataset", "series");
    file.write("/ts/blob", Tensor::full({100}, 0.5));
    file.write_blob("/meta/json", "{}");
    file.commit();
  }
  EXPECT_EQ(read_file(folder / "a.h5"), read_file(folder / "b.h5"));
  EXPECT_EQ(FileReader(folder / "a.h5").header().created_unix, 0);
  setenv("SOURCE_DATE_EPOCH", "1700000000", 1);
  {
    FileWriter file(folder / "c.h5", "modrwkv.dataset", "series");
    file.commit();
  }
  unsetenv("SOURCE_DATE_EPOCH");
  EXPECT_EQ(FileReader(folder / "c.h5").header().created_unix, 1700000000);
}

TEST(Hdf5Writer, WithoutCommitNothingIsLeft) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.h5";
  write_file(path, "old");
  {
    FileWriter file(path, "modrwkv.dataset", "series");
    file.write("/ts/blob", Tensor::full({100000}, 1));
  }
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(list_directory(folder.path()).size(), 1u);
}

TEST(Hdf5Writer, MisuseIsNamed) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.h5";
  FileWriter file(path, "modrwkv.dataset", "series");
  file.write("/ts/blob", Tensor::full({4}, 1));
  EXPECT_EQ(refusal([&] { file.write("/ts/blob", Tensor::full({4}, 1)); }),
            path + ": /ts/blob: exists already");
  EXPECT_EQ(refusal([&] { file.write("/ts/blob/x", Tensor::full({4}, 1)); }),
            path + ": /ts/blob: is a dataset, cannot hold others");
  EXPECT_NE(refusal([&] { file.write("/ts/a b", Tensor::full({4}, 1)); }).find("names are made of"),
            std::string::npos);
  EXPECT_NE(refusal([&] { file.write("/x", Tensor()); }).find("undefined"), std::string::npos);
  EXPECT_NE(refusal([&] {
              file.create("/x", ElementType::f64, {1ull << 40, 1ull << 40});
            }).find("too large"),
            std::string::npos);
  EXPECT_NE(refusal([&] {
              file.write("/x", Tensor::full({1, 1, 1, 1, 1}, 1));
            }).find("5 axes"),
            std::string::npos);
  EXPECT_NE(refusal([&] { file.set_attribute("/", "a", std::string(5000, 'x')); }).find("5000 bytes"),
            std::string::npos);
  file.create("/part", ElementType::u8, {3});
  file.append("/part", "ab", 2);
  EXPECT_EQ(refusal([&] { file.append("/part", "ab", 2); }), path + ": /part: 2 bytes follow 2 of 3");
  EXPECT_EQ(refusal([&] { file.commit(); }), path + ": /part: 2 of 3 bytes were written");
  EXPECT_NE(refusal([&] { FileWriter(folder / "no/a.h5", "modrwkv.dataset", ""); }).find("No such file"),
            std::string::npos);
  EXPECT_NE(refusal([&] { FileWriter(folder.path(), "modrwkv.dataset", ""); }).find("is a folder"),
            std::string::npos);
}

// Read by tests/h5py_check.py, which names the file in H5PY_CHECK; elsewhere only written. Element i of every
// dataset of n elements is i * 3 - n / 2, as far as the type holds it; /all/bf16 holds all words.
TEST(Hdf5Writer, FileForAnotherReader) {
  const TemporaryFolder folder;
  const char* wanted = getenv("H5PY_CHECK");
  FileWriter file(wanted ? wanted : folder / "a.h5", "modrwkv.dataset", "series");
  const auto put = [&](const char* name, auto zero) {
    using T = decltype(zero);
    std::vector<T> values(120);
    for (int64_t i = 0; i < 120; ++i) values[size_t(i)] = T(i * 3 - 60);
    file.write(name, ElementTypeOf<T>::value, {2, 3, 4, 5}, values.data());
  };
  put("/all/f32", float());
  put("/all/f64", double());
  put("/all/i8", int8_t());
  put("/all/i16", int16_t());
  put("/all/i32", int32_t());
  put("/all/i64", int64_t());
  put("/all/u8", uint8_t());
  put("/all/u16", uint16_t());
  put("/all/u32", uint32_t());
  put("/all/u64", uint64_t());
  file.write("/all/bf16", all_bf16());
  file.write("/all/none", Tensor::zeros({0, 3}));
  file.write_strings("/all/names", {"gr\xc3\xbc\xc3\x9f", "", "z"});
  file.set_attribute("/all", "text", "gr\xc3\xbc\xc3\x9f");
  file.set_attribute("/all", "empty", "");
  file.set_attribute("/all", "int", int64_t(-5));
  file.set_attribute("/all", "uint", UINT64_MAX);
  file.set_attribute("/all", "double", 0.1);
  file.set_attribute("/all", "list", std::vector<double>{0.5, -1});
  file.commit();
}

// A limit on the size of files, for a scope.
struct FileSizeLimit {
  explicit FileSizeLimit(rlim_t bytes) {
    getrlimit(RLIMIT_FSIZE, &before);
    rlimit now = before;
    now.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &now);
  }
  ~FileSizeLimit() { setrlimit(RLIMIT_FSIZE, &before); }
  rlimit before;
};

TEST(Hdf5Writer, FileSizeLimitIsOneLineAndHarmsNothing) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.h5";
  for (const size_t limit : {0u, 1000u, 100000u, 600000u, 2000000u, 3999000u}) {
    write_file(path, "old");
    const std::string message = refusal([&] {
      const FileSizeLimit limited(limit);
      FileWriter file(path, "modrwkv.dataset", "series");
      file.write("/a/x", Tensor::full({1000}, 1));
      file.write("/a/y", Tensor::full({1000000}, 1));
      for (int i = 0; i < 50; ++i) file.write("/b/" + std::to_string(i), Tensor::full({10}, 1));
      file.commit();
    });
    EXPECT_EQ(message, path + ": cannot write: File too large") << limit;
    EXPECT_EQ(read_file(path), "old");
    EXPECT_EQ(list_directory(folder.path()).size(), 1u);
  }
  FileWriter file(path, "modrwkv.dataset", "series");  // and the library is still in order
  file.write("/a/x", Tensor::full({1000}, 1));
  file.commit();
  EXPECT_EQ(FileReader(path).read("/a/x").numel(), 1000);
}

TEST(Hdf5Writer, ManySetsInOneGroup) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.h5";
  {
    FileWriter file(path, "modrwkv.model", "x");
    for (int i = 0; i < 3000; ++i) {
      const std::string name = "/tensors/blocks." + std::to_string(i) + ".att.a_long_name_of_a_tensor.weight";
      file.write_vector<int32_t>(name, {i});
      file.set_attribute(name, "role", "weight");
      file.set_attribute(name, "group", 1);
    }
    file.commit();
  }
  const FileReader file(path);
  EXPECT_EQ(file.list("/tensors").size(), 3000u);
  EXPECT_EQ(file.read_vector<int32_t>("/tensors/blocks.2999.att.a_long_name_of_a_tensor.weight"),
            std::vector<int32_t>{2999});
}

// ---------------------------------------------------------------- the reader, fed by the library

TEST(Hdf5Reader, FastAndSlowPathGiveEqualBytes) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.h5";
  std::vector<int32_t> values(7 * 5 * 3);
  std::iota(values.begin(), values.end(), -20);
  {
    RawFile file(path);
    file.group("/g");
    const auto put = [&](const char* name, hid_t type, hid_t plist) {
      file.dataset(name, type, {7, 5, 3}, H5T_NATIVE_INT32, values.data(), plist);
    };
    put("/g/plain", H5T_STD_I32LE, H5P_DEFAULT);
    put("/g/big_endian", H5T_STD_I32BE, H5P_DEFAULT);
    const hsize_t chunk[] = {2, 5, 2};
    hid_t p = creation_list();
    must(H5Pset_chunk(p, 3, chunk) >= 0);
    put("/g/chunked", H5T_STD_I32LE, p);
    p = creation_list();
    must(H5Pset_chunk(p, 3, chunk) >= 0 && H5Pset_fletcher32(p) >= 0);
    put("/g/fletcher32", H5T_STD_I32LE, p);
    p = creation_list();
    must(H5Pset_layout(p, H5D_COMPACT) >= 0);
    put("/g/compact", H5T_STD_I32LE, p);
  }
  const FileReader file(path);
  for (const std::string& name : file.list("/g")) {
    const std::string full = "/g/" + name;
    const DatasetInfo d = file.info(full);
    EXPECT_EQ(d.offset.has_value(), name == "plain") << name;
    EXPECT_EQ(file.read(full, DType::i32, {7, -1, 3}).to_vector<int32_t>(), values) << name;
    EXPECT_EQ(file.read_rows(full, 2, 5).to_vector<int32_t>(),
              std::vector<int32_t>(values.begin() + 30, values.begin() + 75));
    std::vector<char> part(101);
    file.read_bytes(d, 33, part.size(), part.data());
    EXPECT_EQ(memcmp(part.data(), reinterpret_cast<const char*>(values.data()) + 33, part.size()), 0) << name;
  }
}

TEST(Hdf5Reader, WhatWasNeverWrittenReadsAsFillValue) {
  const TemporaryFolder folder;
  { RawFile(folder / "a.h5").dataset("/x", H5T_STD_I32LE, {5}, H5T_NATIVE_INT32, nullptr); }
  const FileReader file(folder / "a.h5");
  EXPECT_FALSE(file.info("/x").offset.has_value());
  EXPECT_EQ(file.read_vector<int32_t>("/x"), std::vector<int32_t>(5, 0));
}

TEST(Hdf5Reader, AcceptsWhatPythonWrites) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.h5";
  {
    RawFile file(path, true);
    const int64_t one = 1, step = int64_t(__builtin_bswap64(uint64_t(-3)));
    file.text("/", "format", "modrwkv.model", true);
    file.number("/", "format_major", H5T_STD_I64LE, &one);
    file.number("/", "step", H5T_STD_I64BE, &step);
    const auto words = all_words();
    file.dataset("/w", H5T_STD_U16LE, {65536}, H5T_NATIVE_UINT16, words.data());
    file.text("/w", "dtype", "bf16", true);
  }
  const FileReader file(path);
  EXPECT_EQ(file.header().format, "modrwkv.model");
  EXPECT_EQ(file.attribute_int("/", "step"), -3);
  EXPECT_NE(refusal([&] { file.attribute_uint("/", "step"); }).find("attribute step is -3"), std::string::npos);
  const Tensor t = file.read("/w", DType::bf16);
  EXPECT_EQ(memcmp(t.raw(), all_words().data(), t.bytes()), 0);
}

TEST(Hdf5Reader, ExpectationsAreNamed) {
  const TemporaryFolder folder;
  const std::string path = folder / "etth1.h5";
  {
    FileWriter file(path, "modrwkv.dataset", "series");
    file.write("/ts/blob", Tensor::zeros({3, 4}, DType::i64));
    file.write_vector<uint64_t>("/ts/falls", {0, 5, 3, 12});
    file.write_vector<uint64_t>("/ts/short", {0, 5, 11});
    file.write_vector<uint64_t>("/ts/late", {1, 12});
    file.write_vector<uint64_t>("/ts/none", {});
    file.set_attribute("/ts", "text", "a");
    file.commit();
  }
  const FileReader file(path);
  EXPECT_EQ(refusal([&] { file.read("/ts/blob", DType::f32, {-1}); }),
            path + ": /ts/blob: expected f32 [any], found i64 [3, 4]");
  EXPECT_EQ(refusal([&] { file.read("/ts/missing"); }), path + ": /ts/missing: is missing");
  EXPECT_EQ(refusal([&] { file.read("/nowhere/x"); }), path + ": /nowhere/x: is missing");
  EXPECT_EQ(refusal([&] { file.read("/ts"); }), path + ": /ts: is a group, expected a dataset");
  EXPECT_EQ(refusal([&] { file.require_format("modrwkv.model"); }),
            path + ": is a modrwkv.dataset file, expected modrwkv.model");
  EXPECT_EQ(refusal([&] { file.read_offsets("/ts/falls", 12); }),
            path + ": /ts/falls: offsets fall at 2: 5 then 3");
  EXPECT_EQ(refusal([&] { file.read_offsets("/ts/short", 12); }),
            path + ": /ts/short: the last offset is 11, expected 12");
  EXPECT_EQ(refusal([&] { file.read_offsets("/ts/late", 12); }),
            path + ": /ts/late: the first offset is 1, expected 0");
  EXPECT_EQ(refusal([&] { file.read_offsets("/ts/none", 0); }),
            path + ": /ts/none: no offsets, expected at least one");
  EXPECT_NE(refusal([&] { file.read_offsets("/ts/short", 11, 5); }).find("item 1 has 6 elements"),
            std::string::npos);
  EXPECT_EQ(refusal([&] { file.attribute_int("/ts", "text"); }),
            path + ": /ts: attribute text is \"a\", expected an integer");
  EXPECT_EQ(refusal([&] { file.attribute_double("/ts", "none"); }), path + ": /ts: attribute none is missing");
  EXPECT_TRUE(file.list("/nowhere").empty());
  EXPECT_FALSE(file.has("/ts/blob/deeper"));
  EXPECT_NE(refusal([&] { file.read_rows("/ts/blob", 2, 4); }).find("rows [2, 4)"), std::string::npos);
}

TEST(Hdf5Reader, DamagedContentIsFound) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.h5";
  {
    FileWriter file(path, "modrwkv.dataset", "series");
    file.write("/ts/blob", Tensor::full({1000}, 1));
    file.commit();
  }
  std::string bytes = read_file(path);
  bytes[*FileReader(path).info("/ts/blob").offset + 2000] ^= 16;
  write_file(path, bytes);
  EXPECT_NE(refusal([&] { FileReader(path).read("/ts/blob"); }).find(": /ts/blob: is damaged (xxh64"),
            std::string::npos);
  EXPECT_NE(refusal([&] { FileReader(path).verify("/ts/blob"); }).find(": /ts/blob: is damaged (xxh64"),
            std::string::npos);
}

TEST(Hdf5Reader, UnknownVersionsAndFeaturesAreRefused) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.h5";
  {
    FileWriter file(path, "modrwkv.dataset", "series");
    file.require_feature("pieces");
    file.commit();
  }
  EXPECT_EQ(refusal([&] { FileReader file(path); }),
            path + ": needs \"pieces\", which this program does not know");
  {
    RawFile file(path, true);
    const int two = 2;
    file.text("/", "format", "modrwkv.dataset");
    file.number("/", "format_major", H5T_NATIVE_INT, &two);
  }
  EXPECT_NE(refusal([&] { FileReader file(path); }).find("has format version 2"), std::string::npos);
  { RawFile file(path, true); }
  EXPECT_NE(refusal([&] { FileReader file(path); }).find("is not a file of ours"), std::string::npos);
  { RawFile(path).text("/", "kind", std::string("a\nb\x1b[2J")); }
  EXPECT_EQ(FileReader(path).header().kind.size(), 7u);
}

}  // namespace
}  // namespace modrwkv
