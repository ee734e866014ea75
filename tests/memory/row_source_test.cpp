#include "memory/row_source.h"

#include <cmath>

#include "core/half.h"
#include "core/random.h"
#include "files/safetensors.h"
#include "pack_support.h"
#include "simd/rows.h"

namespace mneme::row_source_test {
namespace {

using namespace testing_support;

class RowSourceTest : public FolderTest {
 protected:
  struct Tensor {
    std::string name;
    DType type;
    std::vector<uint64_t> shape;
    std::vector<std::byte> data;
  };
  static Tensor random_tensor(const std::string& name, DType type, std::vector<uint64_t> shape,
                              uint64_t seed) {
    uint64_t bytes = dtype_info(type).block_bytes;
    for (const uint64_t d : shape) bytes *= d;
    Tensor out{name, type, std::move(shape), std::vector<std::byte>(bytes)};
    Pcg64 random(seed);
    for (auto& byte : out.data) byte = static_cast<std::byte>(random.below(100));  // no NaN in any type
    return out;
  }
  fs::path write(const std::string& file, const std::vector<Tensor>& tensors) {
    std::vector<SafetensorToWrite> out;
    out.reserve(tensors.size());
    for (const Tensor& tensor : tensors)
      out.push_back({{tensor.name, tensor.type, tensor.shape, tensor.data.size()},
                     [&tensor](AtomicFile& to) { to.write(tensor.data); }});
    write_safetensors(folder / file, out);
    return folder / file;
  }
  static std::vector<std::byte> all_rows(const EngramHash& hash, const RowProducer& rows) {
    const uint32_t bytes = row_bytes(hash.config().format, hash.config().head_dim);
    std::vector<std::byte> out(hash.rows() * bytes);
    // In uneven pieces, across layers.
    for (uint64_t at = 0; at < hash.rows();) {
      const uint64_t count = std::min<uint64_t>(37, hash.rows() - at);
      rows(at, count, out.data() + at * bytes);
      at += count;
    }
    return out;
  }
};

TEST_F(RowSourceTest, RandomRowsAreFiniteModerateAndTheSameEveryTime) {
  for (const RowFormat format :
       {RowFormat::f32, RowFormat::bf16, RowFormat::int8, RowFormat::fp8_e4m3_e8m0}) {
    const EngramHash hash(small_table(format, 64));
    const auto rows = all_rows(hash, random_rows(hash, 5));
    const uint32_t bytes = row_bytes(format, 64);
    std::vector<float> values(64);
    double sum = 0;
    for (uint64_t row = 0; row < hash.rows(); ++row) {
      decode_row(format, rows.data() + row * bytes, 64, values.data());
      for (const float v : values) {
        ASSERT_LT(std::abs(v), 1.0f);
        sum += std::abs(v);
      }
    }
    EXPECT_GT(sum, 0);
    EXPECT_EQ(rows, all_rows(hash, random_rows(hash, 5)));
    EXPECT_NE(rows, all_rows(hash, random_rows(hash, 6)));
  }
}

TEST_F(RowSourceTest, FloatTensorsAreRoundedToTheConfigsFormat) {
  for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
    const EngramHash hash(small_table(RowFormat::int8, 64));
    std::vector<Tensor> tensors;
    for (size_t i = 0; i < 2; ++i)
      tensors.push_back(random_tensor("t." + std::to_string(hash.config().layer_ids[i]), type,
                                      {hash.layer_rows(i) + i, 64}, i));
    const auto source = open_safetensors(write("a.safetensors", tensors));
    const auto rows = all_rows(hash, checkpoint_rows(hash, *source, {"t.{layer}", ""}));
    for (uint64_t row = 0; row < hash.rows(); ++row) {
      const size_t layer = row < hash.layer_rows(0) ? 0 : 1;
      const uint64_t local = row - hash.first_row(layer);
      std::vector<float> values(64);
      for (size_t i = 0; i < 64; ++i) {
        const std::byte* at = tensors[layer].data.data() + (local * 64 + i) * dtype_info(type).block_bytes;
        uint16_t half = 0;
        std::memcpy(&half, at, 2);
        if (type == DType::f32)
          std::memcpy(&values[i], at, 4);
        else
          values[i] = type == DType::f16 ? f16_to_f32(half) : bf16_to_f32(half);
      }
      std::vector<std::byte> want(68);
      encode_row(RowFormat::int8, values.data(), 64, want.data());
      ASSERT_EQ(std::memcmp(rows.data() + row * 68, want.data(), 68), 0) << row;
    }
  }
}

TEST_F(RowSourceTest, RowsOfAReleasedCheckpointAreReadInPlace) {
  const EngramHash hash(small_table(RowFormat::fp8_e4m3_e8m0, 64));
  std::vector<Tensor> weights, scales;
  for (size_t i = 0; i < 2; ++i) {
    const std::string layer = std::to_string(hash.config().layer_ids[i]);
    weights.push_back(random_tensor("m." + layer + ".weight", DType::f8_e4m3, {hash.layer_rows(i), 64}, i));
    scales.push_back(random_tensor("m." + layer + ".scale", DType::f8_e8m0, {hash.layer_rows(i), 2}, i + 10));
  }
  // Weights and scales in different shards.
  write("model-00001-of-00002.safetensors", weights);
  write("model-00002-of-00002.safetensors", scales);
  std::string map;
  for (size_t i = 0; i < 2; ++i)
    map += (i > 0 ? "," : "") + ("\"" + weights[i].name + "\":\"model-00001-of-00002.safetensors\",\"" +
                                 scales[i].name + "\":\"model-00002-of-00002.safetensors\"");
  AtomicFile index(folder / "model.safetensors.index.json");
  index.write("{\"weight_map\":{" + map + "}}");
  index.commit();
  const RowTensorNames names{"m.{layer}.weight", "m.{layer}.scale"};
  const RowLayout layout = checkpoint_layout(hash, folder.path(), names);
  const auto source = open_safetensors_folder(folder.path());
  const auto want = all_rows(hash, checkpoint_rows(hash, *source, names));
  std::vector<uint64_t> ids(hash.rows());
  for (uint64_t i = 0; i < ids.size(); ++i) ids[i] = (i * 31) % ids.size();
  for (const Placement placement : {Placement::ram, Placement::mmap, Placement::direct, Placement::cache}) {
    const auto table = MemoryTable::open(layout, placement);
    ASSERT_EQ(table->row_bytes(), 66u);
    const std::string got = read_rows(*table, ids);
    for (size_t i = 0; i < ids.size(); ++i)
      ASSERT_EQ(std::memcmp(got.data() + i * 66, want.data() + ids[i] * 66, 66), 0)
          << to_string(placement) << ids[i];
  }
  // What needs a conversion cannot be read in place.
  const EngramHash other(small_table(RowFormat::bf16, 64));
  EXPECT_EQ(code_of([&] { checkpoint_layout(other, folder.path(), names); }), ErrorCode::unsupported);
}

TEST_F(RowSourceTest, TensorsThatDoNotFitAreRefused) {
  const EngramHash hash(small_table(RowFormat::fp8_e4m3_e8m0, 64));
  const uint64_t rows = hash.rows();
  const auto source = open_safetensors(write(
      "a.safetensors",
      {random_tensor("short", DType::f32, {rows - 1, 64}, 1),
       random_tensor("narrow", DType::f32, {rows, 32}, 1),
       random_tensor("fp8", DType::f8_e4m3, {rows, 64}, 1), random_tensor("scale", DType::f32, {rows}, 1),
       random_tensor("records", DType::u8, {rows, 66}, 1), random_tensor("wrong", DType::u8, {rows, 65}, 1),
       random_tensor("wide", DType::f64, {rows, 64}, 1)}));
  const auto refused = [&](const std::string& weight, const std::string& scale) {
    return code_of([&] { checkpoint_rows(hash, *source, {weight, scale}); });
  };
  EXPECT_EQ(refused("absent", ""), ErrorCode::not_found);
  EXPECT_EQ(refused("short", ""), ErrorCode::mismatch);
  EXPECT_EQ(refused("narrow", ""), ErrorCode::mismatch);
  EXPECT_EQ(refused("fp8", ""), ErrorCode::mismatch);
  EXPECT_EQ(refused("fp8", "scale"), ErrorCode::mismatch);
  EXPECT_EQ(refused("wrong", ""), ErrorCode::mismatch);
  EXPECT_EQ(refused("wide", ""), ErrorCode::unsupported);
  EXPECT_NO_THROW(checkpoint_rows(hash, *source, {"records", ""}));
}

}  // namespace
}  // namespace mneme::row_source_test
