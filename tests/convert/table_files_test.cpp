// quantize takes memory tables along: the copies are the files, and what would be lost or overwritten is
// refused.
#include "convert/table_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "convert/attach_memory.h"
#include "convert/quantize.h"
#include "engine/memory_models.h"
#include "mneme/error.h"
#include "mneme/session.h"
#include "scratch.h"

namespace mneme::table_files_test {
namespace {

using testing::HasSubstr;

std::string text_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<float> logits_of(const fs::path& model) {
  Session session(Model::load(model.string()));
  AppendOptions options;
  options.all_logits = true;
  const auto span = session.append(load_memory_golden().ids, options);
  return {span.begin(), span.end()};
}

class TableFiles : public testing::Test {
 protected:
  void SetUp() override {
    options.type = "f32";
    options.copy_tables = true;
    fs::create_directories(out);
    write_pack(pack, memory_pack(load_memory_golden(), load_tiny("llama.gguf")->tokenizer()));
    attach_memory(tiny_model_path("llama.gguf"), pack, model);
  }
  std::string refusal(ErrorCode code) {
    try {
      quantize_model(model, out / "q.gguf", options);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_TRUE(fs::is_empty(out));
      return error.what();
    }
    ADD_FAILURE() << "accepted";
    return {};
  }
  ScratchFolder folder;
  fs::path model = folder / "model.gguf", pack = folder / "facts.engram", out = folder / "out";
  QuantizeOptions options;
};

TEST_F(TableFiles, CopiesLieBesideTheOutputWhichNamesThem) {
  quantize_model(model, out / "q.gguf", options);
  EXPECT_EQ(open_checkpoint(out / "q.gguf").config().tables.at("memory").file, "facts.engram");
  EXPECT_EQ(text_of(out / "facts.engram"), text_of(pack));
  const auto want = logits_of(model);
  fs::remove(pack);
  EXPECT_EQ(logits_of(out / "q.gguf"), want);
}

TEST_F(TableFiles, AFolderCarriesThemInside) {
  quantize_model(model, out / "hf/", options);
  EXPECT_EQ(text_of(out / "hf" / "facts.engram"), text_of(pack));
  EXPECT_EQ(open_checkpoint(out / "hf").config().tables.at("memory").file, "facts.engram");
}

TEST_F(TableFiles, WithoutTheOptionTheyStayWhereTheyAre) {
  options.copy_tables = false;
  quantize_model(model, out / "q.gguf", options);
  EXPECT_EQ(open_checkpoint(out / "q.gguf").config().tables.at("memory").file, "../facts.engram");
  EXPECT_FALSE(fs::exists(out / "facts.engram"));
}

TEST_F(TableFiles, InPlaceNothingIsCopied) {
  const auto before = fs::last_write_time(pack);
  quantize_model(model, folder / "q.gguf", options);
  EXPECT_EQ(fs::last_write_time(pack), before);
}

TEST_F(TableFiles, AFileThatIsNotThereIsNamed) {
  fs::remove(pack);
  EXPECT_THAT(refusal(ErrorCode::not_found), HasSubstr("facts.engram"));
}

TEST_F(TableFiles, RowsInSeveralFilesAreNotCopied) {
  fs::remove(pack);
  fs::create_directory(pack);
  EXPECT_THAT(refusal(ErrorCode::invalid_argument), HasSubstr("not in one file"));
}

TEST_F(TableFiles, NotesStandInTheFileAndOnlySomeKeysMayBeSet) {
  options.notes = {{"general.license", "mit"}, {"general.source", "a book"}};
  quantize_model(model, out / "q.gguf", options);
  const Checkpoint made = open_checkpoint(out / "q.gguf");
  const auto* licence = std::get_if<std::string>(made.metadata()->find("general.license"));
  ASSERT_NE(licence, nullptr);
  EXPECT_EQ(*licence, "mit");
  fs::remove_all(out);
  fs::create_directories(out);
  for (const char* key : {"general.architecture", "general.alignment", "mneme.config", "license"}) {
    options.notes = {{key, "x"}};
    EXPECT_THAT(refusal(ErrorCode::invalid_argument), HasSubstr(key));
  }
}

}  // namespace
}  // namespace mneme::table_files_test
