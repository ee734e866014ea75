#include "train/run/checkpoint.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "core/checked.h"
#include "core/checksum.h"
#include "core/fail.h"
#include "core/json_fields.h"
#include "files/safetensors.h"
#include "train/blocks/model_files.h"

namespace mneme::train {
namespace {

constexpr std::string_view kPrefix = "step-", kUnfinished = ".unfinished-", kRemoved = ".removed-";

void sync(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  require(fd >= 0, ErrorCode::io, "cannot open {}: {}", path.string(), std::strerror(errno));
  const int failed = ::fsync(fd) != 0 ? errno : 0;
  ::close(fd);
  require(failed == 0, ErrorCode::io, "cannot sync {}: {}", path.string(), std::strerror(failed));
}

void move(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  require(!error, ErrorCode::io, "cannot rename {} to {}: {}", from.string(), to.string(), error.message());
}

/// Removes a folder so that no half of it is ever seen under its name.
void remove_folder(const fs::path& folder) {
  const fs::path hidden = folder.parent_path() / (std::string(kRemoved) + folder.filename().string());
  std::error_code ignored;
  fs::remove_all(hidden, ignored);
  move(folder, hidden);
  fs::remove_all(hidden, ignored);
}

/// Of a document without its own "xxh3".
std::string checksum_of(Json document) {
  document.erase("xxh3");
  const std::string text = document.dump(-1, ' ', false, Json::error_handler_t::replace);
  return Xxh3().update(std::as_bytes(std::span(text))).hex();
}

std::string checksum_of(const fs::path& file) {
  const MappedFile mapped(file, LoadMode::mmap);
  return Xxh3().update(mapped.bytes()).hex();
}

Json describe_files(const fs::path& folder) {
  Json out = Json::object();
  for (const auto& entry : fs::directory_iterator(folder))
    out[entry.path().filename().string()] = {{"bytes", entry.file_size()},
                                             {"xxh3", checksum_of(entry.path())}};
  return out;
}

void write_text(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

void require_finite(const Tensor& values, const std::string& what, uint64_t step) {
  // A sum is not finite if a value is not; where it is not, it may have overflowed.
  require(std::isfinite(values.sum().item<float>()) || at::isfinite(values).all().item<bool>(),
          ErrorCode::corrupt,
          "step {}: {} is not finite after this step, so it is not saved. The checkpoints before it stay; a "
          "lower optimiser.lr or optimiser.clip may help",
          step, what);
}

uint64_t rows_of(const Training& training, const std::string& table) {
  return training.ids.at(table).hash().rows();
}

/// What optimiser.safetensors holds of a table: the state of its rows, and the rows that a pack would round.
bool is_saved(const Training& training, const std::string& table, const std::string& kind) {
  return kind != "rows" || training.config.tables.at(table).format != RowFormat::f32;
}

SafetensorToWrite to_write(std::string name, at::IntArrayRef shape, std::function<void(AtomicFile&)> write) {
  TensorInfo info{std::move(name), DType::f32, {}, sizeof(float)};
  for (const int64_t extent : shape) {
    info.shape.push_back(static_cast<uint64_t>(extent));
    info.bytes = checked_mul(info.bytes, static_cast<uint64_t>(extent), "a tensor");
  }
  return {std::move(info), std::move(write)};
}

void write_values(AtomicFile& file, const Tensor& values) {
  file.write(std::as_bytes(std::span(values.data_ptr<float>(), static_cast<size_t>(values.numel()))));
}

/// State of all optimisers, and f32 rows that their pack does not hold exactly.
void save_optimisers(const fs::path& path, const Training& training, const TableRows& rows) {
  std::vector<SafetensorToWrite> all;
  for (const auto& [name, tensor] : training.optimiser->state())
    all.push_back(to_write(name, tensor.sizes(), [tensor = tensor](AtomicFile& file) {
      write_values(file, tensor.detach().cpu().contiguous());
    }));
  for (const auto& [name, config] : training.config.tables)
    for (const auto& [kind, part] : rows.here(name)) {
      if (!is_saved(training, name, kind)) continue;
      std::vector<int64_t> shape = part.sizes().vec();
      shape[0] = static_cast<int64_t>(rows_of(training, name));
      all.push_back(to_write("table." + name + "." + kind, shape, [&, name, kind](AtomicFile& file) {
        for_stretches(rows_of(training, name), [&](uint64_t first, uint64_t count) {
          write_values(file, rows.read(name, kind, first, count));
        });
      }));
    }
  write_safetensors(path, all);
}

/// Views into `source`, which must outlive them.
NamedTensors view_tensors(const TensorSource& source) {
  NamedTensors out;
  for (const TensorInfo& info : source.tensors()) {
    require(info.type == DType::f32, ErrorCode::corrupt, "optimiser.safetensors: \"{}\" is not f32",
            info.name);
    const std::vector<int64_t> shape(info.shape.begin(), info.shape.end());
    auto* const bytes = const_cast<std::byte*>(source.data(info).data());  // libtorch has no constant view
    out[info.name] = at::from_blob(bytes, shape, at::kFloat);
  }
  return out;
}

Json to_json(const RunState& state, Json files) {
  Json out{{"mneme_checkpoint", 1},
           {"step", state.step},
           {"sequence", state.sequence},
           {"validations_without_gain", state.validations_without_gain},
           {"log_bytes", state.log_bytes},
           {"seconds", state.seconds},
           {"run", state.run},
           {"data", state.data},
           {"files", std::move(files)}};
  if (state.best_validation < std::numeric_limits<double>::infinity())
    out["best_validation"] = state.best_validation;
  out["xxh3"] = checksum_of(out);
  return out;
}

RunState read_state(const Json& json, const std::string& name) {
  JsonFields fields(json, name, ErrorCode::corrupt);
  require(fields.u32("mneme_checkpoint", 0, 1000) == 1, ErrorCode::unsupported,
          "{}: mneme_checkpoint must be 1, the only version of this file", name);
  // A run that began before state.json had a checksum goes on without.
  const std::string sum = fields.string("xxh3", "");
  require(sum.empty() || sum == checksum_of(json), ErrorCode::corrupt,
          "{} is damaged: it is not what was saved", name);
  RunState out;
  out.step = fields.u64("step", 0, UINT64_MAX);
  out.sequence = fields.u64("sequence", 0, UINT64_MAX);
  out.best_validation = fields.number("best_validation", -1e300, 1e300, out.best_validation);
  out.validations_without_gain = fields.u32("validations_without_gain", 0, UINT32_MAX);
  out.log_bytes = fields.u64("log_bytes", 0, UINT64_MAX);
  out.seconds = fields.number("seconds", 0, 1e300);
  const auto object = [&](const char* field) {
    const Json* const value = fields.find(field);
    require(value != nullptr && value->is_object(), ErrorCode::corrupt, "{}: {} is missing", name, field);
    return *value;
  };
  out.run = object("run");
  out.data = object("data");
  object("files");
  fields.finish();
  return out;
}

/// Compares every file of a checkpoint with its description. Throws Error(corrupt).
void verify_files(const fs::path& folder, const Json& files) {
  for (const auto& [name, described] : files.items()) {
    JsonFields fields(described, "files." + name, ErrorCode::corrupt);
    const uint64_t bytes = fields.u64("bytes", 0, UINT64_MAX);
    const std::string sum = fields.string("xxh3");
    const fs::path file = folder / fs::path(name).filename();
    require(fs::is_regular_file(file), ErrorCode::corrupt, "{} is missing", file.string());
    require(fs::file_size(file) == bytes && checksum_of(file) == sum, ErrorCode::corrupt,
            "{} is damaged: it is not what was saved", file.string());
  }
}

/// Folders step-N, the newest first.
std::vector<std::pair<uint64_t, fs::path>> checkpoints(const fs::path& out) {
  std::vector<std::pair<uint64_t, fs::path>> found;
  if (!fs::is_directory(out)) return found;
  for (const auto& entry : fs::directory_iterator(out)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_directory() || !name.starts_with(kPrefix) || name.size() > kPrefix.size() + 19) continue;
    const std::string digits = name.substr(kPrefix.size());
    if (digits.empty() || digits.find_first_not_of("0123456789") != std::string::npos) continue;
    found.emplace_back(std::stoull(digits), entry.path());
  }
  std::sort(found.rbegin(), found.rend());
  return found;
}

void write_folder(const fs::path& folder, const Training& training, const TableRows& rows,
                  const RunTokenizer& tokenizer, const RunState& state) {
  for (const std::string& name : training.parameters.names())
    require_finite(training.parameters.at(name).detach(), "the parameter " + name, state.step);
  save_model(training.config, training.parameters, folder);
  for (const auto& entry : training.config.tables) {
    const std::string& name = entry.first;
    const auto read = [&](uint64_t first, uint64_t count) {
      const Tensor values = rows.read(name, "rows", first, count);
      require_finite(values, "the table " + name, state.step);
      return values;
    };
    save_table(training.config, name, read, entry.second.raw_ids ? nullptr : training.map.get(), folder);
  }
  for (const auto& [name, text] : tokenizer.files) write_text(folder / name, text);
  save_optimisers(folder / "optimiser.safetensors", training, rows);
  write_text(
      folder / "state.json",
      to_json(state, describe_files(folder)).dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
  sync(folder);
}

}  // namespace

std::string checkpoint_name(uint64_t step) {
  return fmt::format("{}{:08}", kPrefix, step);
}

bool has_checkpoint(const fs::path& out) {
  return !checkpoints(out).empty();
}

fs::path save_checkpoint(const fs::path& out, const Training& training, const TableRows& rows,
                         const RunTokenizer& tokenizer, const RunState& state, uint32_t keep) {
  const std::string name = checkpoint_name(state.step);
  const fs::path target = out / name, unfinished = out / (std::string(kUnfinished) + name);
  std::error_code ignored;
  fs::remove_all(unfinished, ignored);
  try {
    std::error_code error;
    fs::create_directory(unfinished, error);
    require(!error, ErrorCode::io, "cannot create {}: {}", unfinished.string(), error.message());
    write_folder(unfinished, training, rows, tokenizer, state);
    if (fs::exists(target)) remove_folder(target);  // of a part of the run that did not live to use it
    move(unfinished, target);
    sync(out);
    write_text(out / "latest", name + "\n");
  } catch (...) {
    fs::remove_all(unfinished, ignored);
    throw;
  }
  uint32_t kept = 0;
  for (const auto& [step, folder] : checkpoints(out))
    if (step <= state.step && keep > 0 && ++kept > keep) remove_folder(folder);
  return target;
}

std::optional<CheckpointFolder> newest_checkpoint(const fs::path& out,
                                                  const std::function<void(const std::string&)>& warn) {
  for (const auto& [step, folder] : checkpoints(out)) {
    try {
      const std::string name = (folder / "state.json").string();
      const Json json = parse_json(read_text_file(name), name);
      CheckpointFolder found{folder, read_state(json, name)};
      require(found.state.step == step, ErrorCode::corrupt, "{} is of step {}", name, found.state.step);
      verify_files(folder, json.at("files"));
      return found;
    } catch (const std::exception& error) {  // Error, or that of a folder that cannot be read
      warn(error.what());
    }
  }
  return std::nullopt;
}

void restore_checkpoint(const CheckpointFolder& checkpoint, Training& training, TableRows& rows) {
  const at::NoGradGuard no_graph;
  const TrainedModel saved = load_model(checkpoint.path);
  const std::string field = first_difference_of_models(saved.config, training.config);
  require(field.empty(), ErrorCode::mismatch, "{} is of another model: \"{}\" differs",
          checkpoint.path.string(), field);
  for (const std::string& name : training.parameters.names()) {
    Tensor value = training.parameters.at(name).detach();
    const Tensor& other = saved.parameters.at(name);
    require(value.sizes() == other.sizes(), ErrorCode::mismatch,
            "{} is of another model: \"{}\" has another shape", checkpoint.path.string(), name);
    value.copy_(other);
  }
  const auto source = open_safetensors(checkpoint.path / "optimiser.safetensors");
  const NamedTensors tensors = view_tensors(*source);
  training.optimiser->restore(tensors, checkpoint.state.step);
  for (const auto& entry : training.config.tables) {
    const std::string& table = entry.first;
    for (const auto& [kind, part] : rows.here(table)) {
      if (!is_saved(training, table, kind)) continue;
      std::vector<int64_t> shape = part.sizes().vec();
      shape[0] = static_cast<int64_t>(rows_of(training, table));
      const auto found = tensors.find("table." + table + "." + kind);
      require(found != tensors.end() && found->second.sizes() == shape, ErrorCode::mismatch,
              "{} has no \"{}\" of the {} rows of the table \"{}\"; is its row optimiser another one?",
              checkpoint.path.string(), kind, shape[0], table);
      for_stretches(rows_of(training, table), [&, &kind = kind](uint64_t first, uint64_t count) {
        rows.write(table, kind, first,
                   found->second.narrow(0, static_cast<int64_t>(first), static_cast<int64_t>(count)));
      });
    }
    if (is_saved(training, table, "rows")) continue;
    read_table(checkpoint.path / entry.second.file, entry.second,
               [&](uint64_t first, const Tensor& values) { rows.write(table, "rows", first, values); });
  }
}

void remove_leftovers(const fs::path& out) {
  if (!fs::is_directory(out)) return;
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(out)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kUnfinished) || name.starts_with(kRemoved)) found.push_back(entry.path());
  }
  std::error_code ignored;
  for (const fs::path& path : found) fs::remove_all(path, ignored);
}

}  // namespace mneme::train
