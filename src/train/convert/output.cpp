#include "train/convert/output.h"

#include "convert/tokenizer_to_json.h"
#include "core/fail.h"
#include "train/blocks/model_files.h"

namespace mneme::train {
namespace {

/// A tokenizer need not have each of its files.
void save_unless_empty(const fs::path& path, const std::string& text) {
  if (text.empty()) return;
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

}  // namespace

void write_output(const ConvertedModel& model, const Checkpoint& original, const Json& summary,
                  const fs::path& out) {
  const fs::path target = out.has_filename() ? out : out.parent_path();
  fs::path folder = target;
  folder += ".partial";
  std::error_code error;
  fs::remove_all(folder, error);
  save_model(model.config, model.parameters, folder);
  for (const auto& [name, table] : model.tables)
    save_table(model.config, name, table, model.ids.at(name).map(), folder);
  const HfTokenizerFiles tokenizer = tokenizer_files(original);
  OrderedJson generation = {{"_from_model_config", true}};
  for (const auto& [key, value] : tokenizer.special_ids.items()) generation[key] = value;
  save_unless_empty(folder / "generation_config.json", tokenizer.generation_config.empty()
                                                           ? generation.dump(2) + "\n"
                                                           : tokenizer.generation_config);
  save_unless_empty(folder / "tokenizer.json", tokenizer.tokenizer);
  save_unless_empty(folder / "tokenizer_config.json", tokenizer.tokenizer_config);
  save_unless_empty(folder / "conversion.json", summary.dump(1) + "\n");
  fs::rename(folder, target, error);  // replaces an empty folder
  require(!error, ErrorCode::io, "cannot rename {} to {}: {}", folder.string(), target.string(),
          error.message());
}

}  // namespace mneme::train
