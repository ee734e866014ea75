// A model with its memory attached answers as the model and the pack do together.
#include "convert/attach_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/memory_models.h"
#include "mneme/error.h"
#include "mneme/session.h"
#include "scratch.h"

namespace mneme::attach_memory_test {
namespace {

using testing::HasSubstr;

std::vector<float> logits_of(const std::shared_ptr<const Model>& model) {
  Session session(model);
  AppendOptions options;
  options.all_logits = true;
  const auto span = session.append(load_memory_golden().ids, options);
  return {span.begin(), span.end()};
}

std::string refusal(const std::function<void()>& action, ErrorCode code) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "accepted";
  return {};
}

class AttachMemory : public testing::Test {
 protected:
  // A pack for the model, without the hash of one.
  fs::path pack_for(const std::string& name) {
    fs::path path = folder / "facts.engram";
    write_pack(path, memory_pack(golden, load_tiny(name)->tokenizer()));
    return path;
  }
  MemoryGolden golden = load_memory_golden();
  ScratchFolder folder;
};

TEST_F(AttachMemory, TheFileAnswersAsModelAndPackTogether) {
  for (const char* name : {"llama.gguf", "llama_q8_0.gguf"}) {
    const fs::path pack = pack_for(name), out = folder / "sub" / "out.gguf";
    fs::create_directories(out.parent_path());
    const AttachResult result = attach_memory(tiny_model_path(name), pack, out);
    EXPECT_EQ(result.layers, (std::vector<uint32_t>{0, 1}));
    EXPECT_EQ(result.bytes, fs::file_size(out));
    LoadOptions options;
    options.threads = 2;
    const auto attached = Model::load(out.string(), options);
    EXPECT_EQ(attached->config().tables.at("memory").file, "../facts.engram");
    EXPECT_EQ(logits_of(attached), logits_of(load_with_memory(pack, name))) << name;
    EXPECT_NE(logits_of(attached), logits_of(load_tiny(name)));
    fs::remove(out);
  }
}

TEST_F(AttachMemory, AHuggingFaceFolderBecomesAFileOfTheSameNumbers) {
  const fs::path out = folder / "out.gguf";
  attach_memory(tiny_model_path("llama"), pack_for("llama"), out);
  const auto a = logits_of(Model::load(out.string())), b = golden.values.at("logits");
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(double{a[i]} - b[i]));
  EXPECT_LE(largest, 1e-2);  // f16 cache
}

TEST_F(AttachMemory, TheNamedPackIsNeededAndMustBeTheOne) {
  const fs::path pack = pack_for("llama"), out = folder / "out.gguf";
  attach_memory(tiny_model_path("llama.gguf"), pack, out);
  fs::rename(pack, folder / "moved.engram");
  EXPECT_THAT(refusal([&] { Model::load(out.string()); }, ErrorCode::not_found), HasSubstr("facts.engram"));
  LoadOptions options;  // named by hand, it serves
  options.memory.push_back({folder / "moved.engram", Placement::mmap});
  EXPECT_NO_THROW(Model::load(out.string(), options));
  MemoryGolden other = golden;
  other.table.seed = 5;
  PackToWrite wrong = memory_pack(other, load_tiny("llama")->tokenizer(), false);
  write_pack(pack, wrong);
  EXPECT_THAT(refusal([&] { Model::load(out.string()); }, ErrorCode::mismatch), HasSubstr("another table"));
}

TEST_F(AttachMemory, InputsAreNotOverwrittenAndNothingIsLeftAfterAFailure) {
  const fs::path pack = pack_for("llama"), model = folder / "model.gguf";
  fs::copy_file(tiny_model_path("llama.gguf"), model);
  refusal([&] { attach_memory(model, pack, model); }, ErrorCode::invalid_argument);
  refusal([&] { attach_memory(model, pack, pack); }, ErrorCode::invalid_argument);
  AttachOptions stops;
  stops.progress = [](uint64_t, uint64_t) { throw Error(ErrorCode::cancelled, "stop"); };
  refusal([&] { attach_memory(model, pack, folder / "out.gguf", stops); }, ErrorCode::cancelled);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 2);
  write_pack(pack, memory_pack(golden, load_tiny("llama")->tokenizer(), false));
  EXPECT_THAT(refusal([&] { attach_memory(model, pack, folder / "out.gguf"); }, ErrorCode::mismatch),
              HasSubstr("no modules"));
}

}  // namespace
}  // namespace mneme::attach_memory_test
