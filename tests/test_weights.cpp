// Model files: tensors and configuration survive; an index or attribute that disagrees is refused.
#include <gtest/gtest.h>

#include <cstring>

#include "core/error.h"
#include "core/files.h"
#include "core/hdf5.h"
#include "models/weights.h"
#include "tests/raw_hdf5.h"
#include "tests/run_program.h"

namespace modrwkv {
namespace {

using testing::must;
using testing::RawFile;
using testing::refusal;
using testing::TemporaryFolder;

const char* const kConfig =
    R"({"vocab": 0, "n_layer": 2, "n_embd": 64, "ln_eps": 1e-5, "adapter": "mlp", "nested": {"b": 1, "a": 2}})";

Tensor ramp(const Shape& shape, DType type = DType::f32) {
  Tensor t = Tensor::empty(shape);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = float(i) / 7;
  return t.to(type);
}

std::vector<NamedTensor> some_tensors() {
  return {{"blocks.1.att.x_r", ramp({1, 1, 64}), 1},
          {"blocks.0.att.w0", ramp({64}), 2},
          {"head.weight", ramp({5, 64}), 0},
          {"steps", Tensor::from<int64_t>({1, 2}, {2}), 0, true},
          {"empty", Tensor::zeros({0, 4}), 0}};
}

TEST(Weights, EverythingSurvives) {
  const TemporaryFolder folder;
  const std::string path = folder / "model.h5";
  write_model_file(path, "rwkv7", kConfig, some_tensors());
  const ModelFile model = read_model_file(path);
  EXPECT_EQ(model.kind, "rwkv7");
  EXPECT_EQ(model.config_json,
            R"({"adapter":"mlp","ln_eps":1e-05,"n_embd":64,"n_layer":2,"nested":{"a":2,"b":1},"vocab":0})");
  ASSERT_EQ(model.tensors.size(), 5u);
  EXPECT_EQ(model.tensors[0].name, "blocks.0.att.w0");  // sorted
  for (const NamedTensor& t : some_tensors()) {
    const Tensor* back = model.find(t.name);
    ASSERT_NE(back, nullptr) << t.name;
    EXPECT_EQ(back->shape(), t.tensor.shape());
    EXPECT_EQ(back->dtype(), t.tensor.dtype());
    EXPECT_EQ(memcmp(back->raw(), t.tensor.raw(), t.tensor.bytes()), 0) << t.name;
  }
  EXPECT_EQ(model.tensors[0].group, 2);
  EXPECT_TRUE(model.tensors[4].buffer);
  EXPECT_EQ(model.find("blocks"), nullptr);

  const FileReader file(path);
  EXPECT_EQ(file.attribute_uint("/config", "n_layer"), 2u);
  EXPECT_EQ(file.attribute_double("/config", "ln_eps"), 1e-5);
  EXPECT_EQ(file.attribute_string("/config", "adapter"), "mlp");
  EXPECT_EQ(file.read_blob("/index/names"), "blocks.0.att.w0\nblocks.1.att.x_r\nempty\nhead.weight\nsteps");
  EXPECT_EQ(file.read_vector<uint64_t>("/index/offset")[3], *file.info("/tensors/head.weight").offset);
  EXPECT_EQ(file.read_vector<uint8_t>("/index/dtype"), (std::vector<uint8_t>{0, 0, 0, 0, 5}));
}

TEST(Weights, Bf16IsRoundedToNearestEven) {
  const TemporaryFolder folder;
  const std::string path = folder / "model.h5";
  write_model_file(path, "rwkv7", "{}",
                   {{"w", Tensor::from<float>({1 + 1.0f / 256, 3.4e38f, 1 + 3.0f / 256}, {3})}}, DType::bf16);
  const Tensor t = *read_model_file(path).find("w");
  ASSERT_EQ(t.dtype(), DType::bf16);
  const uint16_t* words = static_cast<const uint16_t*>(t.raw());
  EXPECT_EQ(words[0], 0x3f80);  // the library's own conversion gives 0x3f81
  EXPECT_EQ(words[1], 0x7f80);  // and 0x7f7f
  EXPECT_EQ(words[2], 0x3f82);
}

TEST(Weights, DisagreementsAreRefused) {
  const TemporaryFolder folder;
  const std::string path = folder / "model.h5";
  const auto edit = [&](auto&& body) {
    write_model_file(path, "rwkv7", kConfig, some_tensors());
    const hid_t f = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    must(f >= 0);
    body(f);
    must(H5Fclose(f) >= 0);
    return refusal([&] { read_model_file(path); });
  };
  // Changes the first word of a dataset and drops its hash.
  const auto poke = [](hid_t f, const char* name, uint64_t value) {
    const hid_t d = H5Dopen2(f, name, H5P_DEFAULT), s = H5Dget_space(d), one = H5Screate(H5S_SCALAR);
    const hsize_t at[2] = {0, 0};
    must(H5Sselect_elements(s, H5S_SELECT_SET, 1, at) >= 0 &&
         H5Dwrite(d, H5T_NATIVE_UINT64, one, s, H5P_DEFAULT, &value) >= 0);
    must(H5Adelete(d, "xxh64") >= 0);
    H5Sclose(one), H5Sclose(s), H5Dclose(d);
  };
  EXPECT_EQ(edit([&](hid_t f) { poke(f, "/index/offset", 96); }),
            path + ": /index/offset: disagrees with the tensors");
  EXPECT_EQ(edit([&](hid_t f) { poke(f, "/index/bytes", 1ull << 60); }),
            path + ": /index/bytes: disagrees with the tensors");
  EXPECT_EQ(edit([&](hid_t f) { poke(f, "/index/shape", 1ull << 60); }),
            path + ": /index/shape: disagrees with the tensors");
  EXPECT_EQ(edit([&](hid_t f) { poke(f, "/index/dtype", 2); }),
            path + ": /index/dtype: disagrees with the tensors");
  EXPECT_EQ(edit([&](hid_t f) { must(H5Ldelete(f, "/tensors/head.weight", H5P_DEFAULT) >= 0); }),
            path + ": /index/names: disagrees with the tensors");
  EXPECT_EQ(edit([&](hid_t f) {
              must(H5Adelete_by_name(f, "/config", "n_layer", H5P_DEFAULT) >= 0);
              const hid_t s = H5Screate(H5S_SCALAR);
              const hid_t a = H5Acreate_by_name(f, "/config", "n_layer", H5T_STD_U32LE, s, H5P_DEFAULT,
                                                H5P_DEFAULT, H5P_DEFAULT);
              const uint32_t three = 3;
              must(H5Awrite(a, H5T_NATIVE_UINT32, &three) >= 0);
              H5Aclose(a), H5Sclose(s);
            }),
            path + ": /config: attribute n_layer is 3, /config/json says 2");
  EXPECT_EQ(edit([&](hid_t f) {
              poke(f, "/tensors/steps", 0);
              must(H5Ldelete(f, "/config/json", H5P_DEFAULT) >= 0);
            }),
            path + ": /config/json: is missing");
}

TEST(Weights, AFileWithoutIndexIsRead) {
  const TemporaryFolder folder;
  const std::string path = folder / "model.h5";
  {
    FileWriter file(path, "modrwkv.model", "siglip");
    file.write_blob("/config/json", "{}");
    file.write("/tensors/w", ramp({2, 2}));
    file.commit();
  }
  EXPECT_EQ(read_model_file(path).tensors.size(), 1u);
}

TEST(Weights, WrongInputIsNamed) {
  const TemporaryFolder folder;
  const std::string path = folder / "model.h5";
  EXPECT_NE(
      refusal([&] { write_model_file(path, "x", "{", {}); }).find(path + ": configuration: not valid JSON"),
      std::string::npos);
  EXPECT_NE(refusal([&] {
              write_model_file(path, "x", "{}", {{"a/b", ramp({1})}});
            }).find("has no '/'"),
            std::string::npos);
  EXPECT_NE(refusal([&] {
              write_model_file(path, "x", "{}", {{"a", ramp({1})}, {"a", ramp({1})}});
            }).find("exists already"),
            std::string::npos);
  EXPECT_FALSE(path_exists(path));
  {
    FileWriter file(path, "modrwkv.dataset", "series");
    file.commit();
  }
  EXPECT_EQ(refusal([&] { read_model_file(path); }),
            path + ": is a modrwkv.dataset file, expected modrwkv.model");
}

}  // namespace
}  // namespace modrwkv
