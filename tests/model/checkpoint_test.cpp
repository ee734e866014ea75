// Paths of every kind: what opens, and what is said about what does not.
#include "model/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/fail.h"
#include "core/json.h"
#include "model/fake_tensors.h"
#include "model/import_gguf.h"
#include "model/load_tokenizer.h"
#include "model/published_configs.h"
#include "scratch.h"

namespace mneme::checkpoint_test {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;
using testing_fakes::error_of;

const fs::path kModels = fs::path(MNEME_TEST_DATA) / "models";

class Checkpoints : public ::testing::Test {
 protected:
  fs::path write(const std::string& name, const std::string& text) const { return folder_.write(name, text); }
  /// A GGUF file of zeros with the tensors of `config`, described by the config itself.
  fs::path write_model(const ModelConfig& config, const std::string& name) {
    GgufMetadata metadata;
    metadata.set("general.architecture", std::string("mneme"));
    metadata.set(kConfigKey, config.to_json());
    std::vector<GgufTensorToWrite> tensors;
    const testing_fakes::FakeTensors expected(config, NameStyle::gguf);  // keeps the infos alive
    for (const TensorInfo& info : expected.tensors())
      tensors.push_back(
          {info, [bytes = info.bytes](AtomicFile& out) { out.write(std::string(bytes, '\0')); }});
    write_gguf(folder_ / name, metadata, tensors);
    return folder_ / name;
  }
  Error refused(const fs::path& path) {
    return error_of([&] { open_checkpoint(path); });
  }

  ScratchFolder folder_;
};

ModelConfig tiny() {
  ModelConfig config = testing_fakes::uniform(2, 8, 2, 1, 4, 16, 10, 64, 10000, false);
  config.name = "tiny";
  config.layers[1].mixer.type = MixerType::window;
  config.layers[1].mixer.window = 7;
  config.layers[1].mixer.sinks = 2;
  config.layers[1].mixer.qk_norm = true;
  return config;
}

TEST_F(Checkpoints, AGgufFileWithItsOwnConfig) {
  const Checkpoint checkpoint = open_checkpoint(write_model(tiny(), "tiny.gguf"));
  EXPECT_EQ(checkpoint.config(), tiny());
  EXPECT_EQ(checkpoint.style(), NameStyle::gguf);
  ASSERT_NE(checkpoint.metadata(), nullptr);
  EXPECT_THAT(checkpoint.at("blk.1.attn_q_norm.weight").shape, ElementsAre(4u));
  EXPECT_EQ(checkpoint.tensors().data(checkpoint.at("output.weight")).size(), 320u);
  EXPECT_EQ(checkpoint.find("blk.0.attn_q_norm.weight"), nullptr);
  EXPECT_EQ(error_of([&] { checkpoint.at("blk.2.attn_q.weight"); }).code(), ErrorCode::not_found);
  EXPECT_TRUE(checkpoint.leftovers().empty());
}

TEST_F(Checkpoints, AConfigThatDoesNotFitItsTensorsIsRefused) {
  ModelConfig wider = tiny();
  const fs::path path = write_model(wider, "tiny.gguf");
  std::string bytes = read_text_file(path);
  const size_t at = bytes.find("\"hidden\":16");
  ASSERT_NE(at, std::string::npos);
  bytes.replace(at, 11, "\"hidden\":17");
  write("tiny.gguf", bytes);
  const Error error = refused(path);
  EXPECT_EQ(error.code(), ErrorCode::mismatch);
  EXPECT_THAT(error.what(),
              AllOf(HasSubstr("tiny.gguf"), HasSubstr("blk.0.ffn_gate.weight has shape [16, 8], but "
                                                      "the config asks for [17, 8]")));
}

TEST_F(Checkpoints, EveryHuggingFaceFolderOfTheTestDataOpens) {
  int folders = 0;
  for (const auto& entry : fs::directory_iterator(kModels)) {
    if (!entry.is_directory() || !fs::exists(entry.path() / "config.json")) continue;
    SCOPED_TRACE(entry.path().string());
    const Checkpoint checkpoint = open_checkpoint(entry.path());
    EXPECT_EQ(checkpoint.style(), NameStyle::hugging_face);
    EXPECT_EQ(checkpoint.metadata(), nullptr);
    const bool gla_swa = entry.path().filename().string().starts_with("spikingbrain");
    if (entry.path().filename() == "spikingbrain_w8aspike")  // down_proj is not rounded to its scales
      EXPECT_THAT(checkpoint.leftovers(),
                  UnorderedElementsAre(HasSubstr("0.mlp.down_proj.weight_quantizer"),
                                       HasSubstr("1.mlp.down_proj.weight_quantizer")));
    else
      EXPECT_THAT(checkpoint.leftovers(), ElementsAre());
    EXPECT_EQ(checkpoint.config().name, entry.path().filename());
    EXPECT_EQ(checkpoint.config().rope.style, RopeConfig::Style::half);
    const TensorInfo& q = checkpoint.at("blk.0.attn_q.weight");
    EXPECT_EQ(q.name,
              gla_swa ? "model.layers.0.attn.q_proj.weight" : "model.layers.0.self_attn.q_proj.weight");
    EXPECT_EQ(checkpoint.tensors().data(q).size(), q.bytes);
    if (!gla_swa) {
      EXPECT_THAT(checkpoint.folder_file("tokenizer.json"), HasSubstr("\"model\""));
    }
    EXPECT_NE(load_tokenizer(checkpoint), nullptr);
    EXPECT_EQ(checkpoint.folder_file("no such file"), "");
    ++folders;
  }
  EXPECT_GE(folders, 8);
}

TEST_F(Checkpoints, AGgufFileDescribesTheSameModelAsItsFolder) {
  int pairs = 0;
  for (const auto& entry : fs::directory_iterator(kModels)) {
    fs::path folder = entry.path();
    if (folder.extension() != ".gguf") continue;
    folder.replace_extension();
    if (!fs::exists(folder / "config.json")) continue;
    SCOPED_TRACE(entry.path().string());
    ModelConfig gguf = open_checkpoint(entry.path()).config(), hf = open_checkpoint(folder).config();
    hf.name = gguf.name;
    hf.rope.style = gguf.rope.style;                  // llama's rows are permuted in GGUF
    hf.norm.weight_offset = gguf.norm.weight_offset;  // Gemma's one is added already
    EXPECT_EQ(gguf, hf) << gguf.to_json() << "\n" << hf.to_json();
    ++pairs;
  }
  EXPECT_GE(pairs, 3);
}

TEST_F(Checkpoints, TokenizersComeFromFoldersAndFiles) {
  const fs::path llama = kModels / "llama";
  const auto from_folder = load_tokenizer(open_checkpoint(llama));
  const auto from_file = load_tokenizer(open_checkpoint(kModels / "llama.gguf"));
  ASSERT_TRUE(from_folder && from_file);
  EXPECT_EQ(from_folder->vocab_size(), 288u);
  const std::string text = "def base_config(architecture): return 42";
  EXPECT_EQ(from_folder->encode(text), from_file->encode(text));
  EXPECT_EQ(load_tokenizer(open_checkpoint(write_model(tiny(), "tiny.gguf"))), nullptr);

  for (const char* name : {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"})
    fs::copy_file(llama / name, folder_ / name);
  write("chat_template.jinja", "{{ messages }}");
  EXPECT_EQ(load_tokenizer(open_checkpoint(folder_.path()))->chat_template(), "{{ messages }}");
  fs::remove(folder_ / "tokenizer.json");
  EXPECT_EQ(load_tokenizer(open_checkpoint(folder_.path())), nullptr);
}

TEST_F(Checkpoints, OnlyAddedTokensMayLieBeyondTheEmbedding) {
  const fs::path llama = kModels / "llama";
  for (const char* name : {"config.json", "model.safetensors"}) fs::copy_file(llama / name, folder_ / name);
  Json json = parse_json(read_text_file(llama / "tokenizer.json"), "tokenizer.json");
  json["added_tokens"].push_back({{"id", 288},
                                  {"content", "<image>"},
                                  {"special", true},
                                  {"lstrip", false},
                                  {"rstrip", false},
                                  {"normalized", false},
                                  {"single_word", false}});
  write("tokenizer.json", json.dump());
  EXPECT_EQ(load_tokenizer(open_checkpoint(folder_.path()))->find("<image>"), 288);
  json["added_tokens"].erase(json["added_tokens"].size() - 1);
  json["model"]["vocab"]["surplus"] = 288;
  write("tokenizer.json", json.dump());
  const Error error = error_of([&] { load_tokenizer(open_checkpoint(folder_.path())); });
  EXPECT_EQ(error.code(), ErrorCode::mismatch);
  EXPECT_THAT(error.what(), HasSubstr("has 289 tokens, the model only 288"));
}

TEST_F(Checkpoints, APathThatDoesNotExistSuggestsAName) {
  const fs::path model = write_model(tiny(), "tiny.gguf");
  const Error error = refused(folder_ / "tinny.gguf");
  EXPECT_EQ(error.code(), ErrorCode::not_found);
  EXPECT_THAT(error.what(), HasSubstr("did you mean " + model.string()));
  EXPECT_THAT(refused(folder_ / "no" / "such.gguf").what(), HasSubstr("neither does its folder"));
  EXPECT_EQ(refused("").code(), ErrorCode::not_found);
}

TEST_F(Checkpoints, OtherKindsOfFilesAreNamed) {
  EXPECT_THAT(refused(write("pytorch_model.bin", "PK")).what(),
              HasSubstr("give a folder that holds config.json and pytorch_model.bin"));
  EXPECT_THAT(refused(write("model.safetensors", "12345678{}")).what(), HasSubstr("give the folder itself"));
  EXPECT_THAT(refused(write("notes.txt", "hello")).what(),
              HasSubstr("neither a GGUF file nor a Hugging Face folder"));
  EXPECT_THAT(refused(write("broken.gguf", "GGU")).what(), HasSubstr("does not begin with \"GGUF\""));
  EXPECT_EQ(refused(write("cut.gguf", "GGUF\3")).code(), ErrorCode::corrupt);
}

TEST_F(Checkpoints, FoldersWithoutWhatTheyNeedAreExplained) {
  EXPECT_THAT(refused(folder_.path()).what(), HasSubstr("has no config.json"));
  write("pytorch_model.bin", "PK");
  EXPECT_THAT(refused(folder_.path()).what(), HasSubstr("pytorch_model.bin is a PyTorch checkpoint"));
  write("config.json", "{}");
  EXPECT_THAT(refused(folder_.path()).what(),
              HasSubstr("pytorch_model.bin: it does not end with a zip end record"));
  fs::remove(folder_ / "pytorch_model.bin");
  write("weights.pt", "PK");
  EXPECT_THAT(refused(folder_.path()).what(), HasSubstr("weights.pt is a PyTorch checkpoint"));
  fs::remove(folder_ / "weights.pt");
  EXPECT_EQ(refused(folder_.path()).code(), ErrorCode::not_found);  // no safetensors
  fs::remove(folder_ / "config.json");
  const fs::path model = write_model(tiny(), "tiny.gguf");
  EXPECT_THAT(refused(folder_.path()).what(), HasSubstr("did you mean the file " + model.string()));
}

}  // namespace
}  // namespace mneme::checkpoint_test
