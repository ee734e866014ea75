#include "train/run/run_tokenizer.h"

#include "convert/tokenizer_to_json.h"
#include "core/fail.h"
#include "model/checkpoint.h"
#include "model/load_tokenizer.h"
#include "text/tokenizer_fingerprint.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_spec.h"

namespace mneme::train {
namespace {

constexpr uint64_t kMostBytes = uint64_t{256} << 20;

std::string beside(const fs::path& folder, const char* name) {
  return fs::is_regular_file(folder / name) ? read_text_file(folder / name, kMostBytes) : std::string();
}

RunTokenizer from_json_file(const fs::path& file) {
  RunTokenizer out;
  const std::string json = read_text_file(file, kMostBytes);
  const fs::path folder = file.parent_path();
  const std::string config = beside(folder, "tokenizer_config.json"),
                    generation = beside(folder, "generation_config.json");
  out.tokenizer = make_tokenizer(spec_from_tokenizer_json(json, config, generation));
  out.files["tokenizer.json"] = json;
  if (!config.empty()) out.files["tokenizer_config.json"] = config;
  if (!generation.empty()) out.files["generation_config.json"] = generation;
  return out;
}

RunTokenizer from_checkpoint(const fs::path& path) {
  RunTokenizer out;
  const Checkpoint checkpoint = open_checkpoint(path);
  out.tokenizer = load_tokenizer(checkpoint);
  require(out.tokenizer != nullptr, ErrorCode::not_found, "{} has no tokenizer; name one in \"tokenizer\"",
          path.string());
  const HfTokenizerFiles files = tokenizer_files(checkpoint);
  if (!files.tokenizer.empty()) out.files["tokenizer.json"] = files.tokenizer;
  if (!files.tokenizer_config.empty()) out.files["tokenizer_config.json"] = files.tokenizer_config;
  if (!files.generation_config.empty()) out.files["generation_config.json"] = files.generation_config;
  return out;
}

}  // namespace

RunTokenizer RunTokenizer::load(const fs::path& path) {
  require(fs::exists(path), ErrorCode::not_found, "tokenizer {} does not exist", path.string());
  const bool folder = fs::is_directory(path);
  const bool plain_folder = folder && fs::is_regular_file(path / "tokenizer.json");
  RunTokenizer out = plain_folder                             ? from_json_file(path / "tokenizer.json")
                     : !folder && path.extension() == ".json" ? from_json_file(path)
                                                              : from_checkpoint(path);
  out.fingerprint = tokenizer_fingerprint(*out.tokenizer);
  return out;
}

void RunTokenizer::require_fits(uint32_t vocab, const fs::path& path) const {
  require(tokenizer->vocab_size() <= vocab, ErrorCode::mismatch,
          "the tokenizer {} has {} tokens, but model.vocab is {}; give the model at least as many",
          path.string(), tokenizer->vocab_size(), vocab);
}

}  // namespace mneme::train
