// Conversions between GGUF files and Hugging Face folders, on the tiny checkpoints of tests/data/models.
// Their
// *.gguf were written by an independent script (tools/make_golden_gguf.py) from the same weights as the
// folders.
#include "convert/quantize.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstring>
#include <fstream>
#include <limits>

#include "convert/describe_gguf.h"
#include "convert/describe_hf.h"
#include "convert/same_model.h"
#include "convert/weights.h"
#include "mneme/error.h"
#include "model/checkpoint.h"
#include "model/import_gguf.h"
#include "model/tokenizer_from_gguf.h"
#include "scratch.h"
#include "simd/blocks.h"
#include "text/tokenizer_json.h"

namespace mneme::quantize_test {
namespace {

const fs::path kModels = fs::path(MNEME_TEST_DATA) / "models";
constexpr const char* kFamilies[] = {"llama", "llama3", "llama_linear", "llama_yarn",    "mistral",
                                     "qwen2", "qwen3",  "gemma3",       "gemma3_pattern"};

std::vector<float> values_of(const Checkpoint& model, const TensorInfo& tensor) {
  std::vector<float> out(tensor.values());
  const Bytes bytes = model.tensors().data(tensor);
  const size_t row = tensor.shape.back();
  const size_t row_bytes = bytes.size() / (out.size() / row);
  for (size_t r = 0; r < out.size() / row; ++r)
    dequantize_row(tensor.type, bytes.data() + r * row_bytes, out.data() + r * row, row);
  return out;
}

/// The largest difference of any value of any tensor.
float largest_difference(const Checkpoint& a, const Checkpoint& b) {
  float worst = 0;
  for (const auto& expected : expected_tensors(a.config())) {
    const auto x = values_of(a, a.at(expected.name)), y = values_of(b, b.at(expected.name));
    EXPECT_EQ(x.size(), y.size()) << expected.name;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) worst = std::max(worst, std::fabs(x[i] - y[i]));
  }
  return worst;
}

class Quantize : public testing::Test {
 protected:
  ScratchFolder folder_;

  QuantizeResult run(const fs::path& in, const fs::path& out, const std::string& type,
                     bool pure = false) const {
    QuantizeOptions options;
    options.type = type;
    options.pure = pure;
    options.threads = 2;
    return quantize_model(in, out, options);
  }

  ErrorCode code_of(const fs::path& in, const fs::path& out, const std::string& type,
                    std::string* message) const {
    try {
      run(in, out, type);
    } catch (const Error& error) {
      *message = error.what();
      return error.code();
    }
    return ErrorCode::internal;
  }

  bool is_clean() const { return fs::is_empty(folder_.path()); }
};

class QuantizeFamily : public Quantize, public testing::WithParamInterface<const char*> {};

TEST_P(QuantizeFamily, FolderToGgufAndBackKeepsConfigAndWeights) {
  const fs::path original = kModels / GetParam();
  run(original, folder_ / "model.gguf", "f32");
  run(folder_ / "model.gguf", folder_ / "back/", "f32");
  const auto before = open_checkpoint(original), after = open_checkpoint(folder_ / "back");
  EXPECT_TRUE(same_model(before.config(), after.config())) << before.config().to_json() << "\n"
                                                           << after.config().to_json();
  // Exact but for Gemma's norms, to which 1 is added and from which it is taken again in f32.
  EXPECT_LE(largest_difference(before, after), before.config().norm.weight_offset == 0 ? 0.0f : 1.2e-7f);
}

TEST_P(QuantizeFamily, BothFormatsDescribeItByStandardKeys) {
  const auto model = open_checkpoint(kModels / GetParam());
  EXPECT_TRUE(describe_hf(model.config(), "float32").standard)
      << describe_hf(model.config(), "float32").json.dump();
  EXPECT_TRUE(describe_gguf(model.config()).standard);
}

TEST_P(QuantizeFamily, TokenizerGivesTheSameIdsInBothFormats) {
  const fs::path original = kModels / GetParam();
  run(original, folder_ / "model.gguf", "f32");
  run(folder_ / "model.gguf", folder_ / "back/", "f32");
  const auto from_folder = [](const fs::path& path) {
    const auto model = open_checkpoint(path);
    return make_tokenizer(spec_from_tokenizer_json(model.folder_file("tokenizer.json"),
                                                   model.folder_file("tokenizer_config.json"),
                                                   model.folder_file("generation_config.json")));
  };
  const auto want = from_folder(original), back = from_folder(folder_ / "back");
  const auto gguf_model = open_checkpoint(folder_ / "model.gguf");
  const auto gguf = make_tokenizer(tokenizer_spec_from_gguf(*gguf_model.metadata()));
  for (const char* text : {"", "The quick brown fox, 1234!", "  spaces\n\n\ttabs ", "Grüße 你好 <|end|> x"}) {
    EXPECT_EQ(gguf->encode(text), want->encode(text)) << text;
    EXPECT_EQ(back->encode(text), want->encode(text)) << text;
  }
  EXPECT_EQ(back->eos(), want->eos());
  EXPECT_EQ(gguf->bos(), want->bos());
}

INSTANTIATE_TEST_SUITE_P(All, QuantizeFamily, testing::ValuesIn(kFamilies),
                         [](const auto& test) { return std::string(test.param); });

TEST_F(Quantize, FolderToGgufEqualsAnIndependentConverter) {
  for (const char* name : {"llama", "qwen3", "gemma3_pattern"}) {
    run(kModels / name, folder_ / "own.gguf", "f32");
    const auto own = open_checkpoint(folder_ / "own.gguf");
    const auto golden = open_checkpoint(kModels / (std::string(name) + ".gguf"));
    EXPECT_EQ(largest_difference(golden, own), 0.0f) << name;
    // Other programs do not know mneme.config: the standard keys must say the same.
    GgufMetadata keys = *own.metadata();
    keys.erase(kConfigKey);
    EXPECT_TRUE(same_model(config_from_gguf(keys, own.tensors()), golden.config())) << name;
  }
}

TEST_F(Quantize, Q8EqualsTheReferenceQuantizer) {
  run(kModels / "llama", folder_ / "own.gguf", "q8_0");
  const auto own = open_checkpoint(folder_ / "own.gguf"),
             golden = open_checkpoint(kModels / "llama_q8_0.gguf");
  size_t compared = 0;
  for (const auto& expected : expected_tensors(golden.config())) {
    const auto &a = own.at(expected.name), &b = golden.at(expected.name);
    if (a.type != b.type) continue;
    const Bytes x = own.tensors().data(a), y = golden.tensors().data(b);
    EXPECT_TRUE(std::equal(x.begin(), x.end(), y.begin(), y.end())) << expected.name;
    compared += a.type == DType::q8_0;
  }
  EXPECT_GT(compared, 10u);
}

TEST_F(Quantize, FourBitsKeepTheEmbeddingAtEightUnlessPure) {
  run(kModels / "llama", folder_ / "mixed.gguf", "q4_0");
  run(kModels / "llama", folder_ / "pure.gguf", "q4_0", true);
  const auto mixed = open_checkpoint(folder_ / "mixed.gguf"), pure = open_checkpoint(folder_ / "pure.gguf");
  EXPECT_EQ(mixed.at("token_embd.weight").type, DType::q8_0);
  EXPECT_EQ(pure.at("token_embd.weight").type, DType::q4_0);
  EXPECT_EQ(mixed.at("blk.0.ffn_up.weight").type, DType::q4_0);
  EXPECT_EQ(mixed.at("blk.0.attn_norm.weight").type, DType::f32);
  EXPECT_LT(largest_difference(mixed, pure), 0.1f);
}

TEST_F(Quantize, GgufToGgufKeepsMetadataAndReportsBytes) {
  uint64_t done = 0, total = 0;
  QuantizeOptions options;
  options.type = "f16";
  options.progress = [&](uint64_t d, uint64_t t) {
    done = d;
    total = t;
  };
  const auto result = quantize_model(kModels / "llama.gguf", folder_ / "out.gguf", options);
  EXPECT_EQ(done, total);
  EXPECT_GT(total, 0u);
  EXPECT_EQ(result.bytes_in, fs::file_size(kModels / "llama.gguf"));
  EXPECT_EQ(result.bytes_out, fs::file_size(folder_ / "out.gguf"));
  const auto in = open_checkpoint(kModels / "llama.gguf"), out = open_checkpoint(folder_ / "out.gguf");
  for (const auto& [key, value] : in.metadata()->values()) EXPECT_TRUE(out.metadata()->has(key)) << key;
  EXPECT_LT(largest_difference(in, out), 1e-3f);
}

TEST_F(Quantize, ThreadsDoNotChangeTheFile) {
  QuantizeOptions options;
  options.type = "q4_0";
  for (const int threads : {1, 3}) {
    options.threads = threads;
    quantize_model(kModels / "qwen3", folder_ / std::to_string(threads), options);
  }
  EXPECT_EQ(read_text_file(folder_ / "1"), read_text_file(folder_ / "3"));
}

TEST_F(Quantize, RefusesWhatItCannotDoAndLeavesNothing) {
  std::string message;
  const fs::path llama = kModels / "llama.gguf";
  EXPECT_EQ(code_of(llama, folder_ / "x.gguf", "q6_k", &message), ErrorCode::invalid_argument);
  EXPECT_NE(message.find("q6_k"), std::string::npos);
  EXPECT_EQ(code_of(llama, folder_ / "x/", "q8_0", &message), ErrorCode::invalid_argument);
  EXPECT_NE(message.find("f16"), std::string::npos);
  EXPECT_EQ(code_of(llama, folder_ / "no-such-folder" / "x.gguf", "q8_0", &message), ErrorCode::not_found);
  EXPECT_EQ(code_of(folder_ / "absent.gguf", folder_ / "x.gguf", "q8_0", &message), ErrorCode::not_found);
  EXPECT_TRUE(is_clean());
  std::ofstream(folder_ / "note.txt") << "keep me";
  EXPECT_EQ(code_of(llama, folder_.path(), "f32", &message), ErrorCode::invalid_argument);
  EXPECT_NE(message.find("not an empty folder"), std::string::npos);
}

TEST_F(Quantize, RefusesToOverwriteItsInput) {
  std::string message;
  const fs::path copy = folder_ / "in.gguf";
  fs::copy_file(kModels / "llama.gguf", copy);
  fs::create_symlink(copy, folder_ / "alias.gguf");
  const auto before = read_text_file(copy);
  EXPECT_EQ(code_of(copy, copy, "f16", &message), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(copy, folder_ / "alias.gguf", "f16", &message), ErrorCode::invalid_argument);
  EXPECT_EQ(read_text_file(copy), before);
}

TEST_F(Quantize, NamesAWeightThatIsNotFinite) {
  const fs::path broken = folder_ / "broken.gguf";
  fs::copy_file(kModels / "llama.gguf", broken);
  const auto model = open_checkpoint(broken);
  const auto& tensor = model.at("blk.0.ffn_up.weight");
  const auto whole = MappedFile(broken, LoadMode::read);
  const auto bytes = model.tensors().data(tensor);
  // Find the tensor in the file by its own bytes, then damage one of its values.
  const auto at = std::search(whole.bytes().begin(), whole.bytes().end(), bytes.begin(), bytes.begin() + 64);
  ASSERT_NE(at, whole.bytes().end());
  std::fstream file(broken, std::ios::binary | std::ios::in | std::ios::out);
  file.seekp((at - whole.bytes().begin()) + 40);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  file.write(reinterpret_cast<const char*>(&nan), sizeof nan);
  file.close();
  for (const char* type : {"q8_0", "q4_0", "f16", "bf16"}) {
    std::string message;
    EXPECT_EQ(code_of(broken, folder_ / "out.gguf", type, &message), ErrorCode::corrupt);
    EXPECT_NE(message.find("blk.0.ffn_up.weight"), std::string::npos) << message;
    EXPECT_FALSE(fs::exists(folder_ / "out.gguf"));
  }
}

TEST_F(Quantize, AFullDiskLeavesNoPartialFile) {
  // A limit on file size fails write() as a full disk does.
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 50'000;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  std::string message;
  const ErrorCode file = code_of(kModels / "llama.gguf", folder_ / "out.gguf", "f32", &message);
  const ErrorCode folder = code_of(kModels / "llama.gguf", folder_ / "out/", "f32", &message);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(file, ErrorCode::io);
  EXPECT_EQ(folder, ErrorCode::io);
  EXPECT_TRUE(is_clean());
}

TEST_F(Quantize, StoppingLeavesNoPartialFile) {
  QuantizeOptions options;
  options.progress = [](uint64_t, uint64_t) { throw Error(ErrorCode::cancelled, "stop"); };
  EXPECT_THROW(quantize_model(kModels / "llama.gguf", folder_ / "out.gguf", options), Error);
  EXPECT_TRUE(is_clean());
}

TEST(RopeRowOrder, GoesThereAndBack) {
  using Style = RopeConfig::Style;
  EXPECT_TRUE(rope_row_order(2, 4, 0, Style::half, Style::half).empty());
  EXPECT_EQ(rope_row_order(1, 6, 0, Style::half, Style::interleaved),
            (std::vector<uint32_t>{0, 3, 1, 4, 2, 5}));
  EXPECT_EQ(rope_row_order(2, 4, 0, Style::half, Style::interleaved),
            (std::vector<uint32_t>{0, 2, 1, 3, 4, 6, 5, 7}));
  EXPECT_EQ(rope_row_order(1, 6, 4, Style::interleaved, Style::half),
            (std::vector<uint32_t>{0, 2, 1, 3, 4, 5}));
  const auto there = rope_row_order(3, 8, 0, Style::half, Style::interleaved);
  const auto back = rope_row_order(3, 8, 0, Style::interleaved, Style::half);
  for (uint32_t r = 0; r < there.size(); ++r) EXPECT_EQ(there[back[r]], r);
}

}  // namespace
}  // namespace mneme::quantize_test
