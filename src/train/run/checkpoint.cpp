#include "train/run/checkpoint.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

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

/// State of all optimisers, and f32 rows that their pack does not hold exactly.
NamedTensors optimiser_tensors(const Training& training) {
  NamedTensors out = training.optimiser->state();
  for (const auto& [table, optimiser] : training.row_optimisers)
    for (const auto& [name, tensor] : optimiser.state()) out["table." + table + "." + name] = tensor;
  for (const auto& [table, rows] : training.tables)
    if (training.config.tables.at(table).format != RowFormat::f32)
      out["table." + table + ".rows"] = rows.values();
  return out;
}

void save_tensors(const fs::path& path, const NamedTensors& tensors) {
  std::vector<SafetensorToWrite> all;
  for (const auto& [name, tensor] : tensors) {
    const Tensor plain = tensor.detach().cpu().contiguous();
    const bool whole = plain.scalar_type() == at::kInt;
    require(whole || plain.scalar_type() == at::kFloat, ErrorCode::internal,
            "optimiser state \"{}\" is neither f32 nor int32", name);
    TensorInfo info{name, whole ? DType::i32 : DType::f32, {}, static_cast<uint64_t>(plain.nbytes())};
    for (const int64_t extent : plain.sizes()) info.shape.push_back(static_cast<uint64_t>(extent));
    all.push_back({std::move(info), [plain](AtomicFile& file) {
                     file.write(Bytes(static_cast<const std::byte*>(plain.data_ptr()),
                                      static_cast<size_t>(plain.nbytes())));
                   }});
  }
  write_safetensors(path, all);
}

/// Views into `source`, which must outlive them.
NamedTensors view_tensors(const TensorSource& source) {
  NamedTensors out;
  for (const TensorInfo& info : source.tensors()) {
    require(info.type == DType::f32 || info.type == DType::i32, ErrorCode::corrupt,
            "optimiser.safetensors: \"{}\" is neither f32 nor int32", info.name);
    const std::vector<int64_t> shape(info.shape.begin(), info.shape.end());
    auto* const bytes = const_cast<std::byte*>(source.data(info).data());  // libtorch has no constant view
    out[info.name] = at::from_blob(bytes, shape, info.type == DType::f32 ? at::kFloat : at::kInt);
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
  return out;
}

RunState read_state(const Json& json, const std::string& name) {
  JsonFields fields(json, name, ErrorCode::corrupt);
  require(fields.u32("mneme_checkpoint", 0, 1000) == 1, ErrorCode::unsupported,
          "{}: mneme_checkpoint must be 1, the only version of this file", name);
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

void write_folder(const fs::path& folder, const Training& training, const RunTokenizer& tokenizer,
                  const RunState& state) {
  save_model(training.config, training.parameters, folder);
  for (const auto& [name, table] : training.tables)
    save_table(training.config, name, table,
               training.config.tables.at(name).raw_ids ? nullptr : training.map.get(), folder);
  for (const auto& [name, text] : tokenizer.files) write_text(folder / name, text);
  save_tensors(folder / "optimiser.safetensors", optimiser_tensors(training));
  write_text(folder / "state.json", to_json(state, describe_files(folder)).dump(1) + "\n");
  sync(folder);
}

}  // namespace

std::string checkpoint_name(uint64_t step) {
  return fmt::format("{}{:08}", kPrefix, step);
}

fs::path save_checkpoint(const fs::path& out, const Training& training, const RunTokenizer& tokenizer,
                         const RunState& state, uint32_t keep) {
  const std::string name = checkpoint_name(state.step);
  const fs::path target = out / name, unfinished = out / (std::string(kUnfinished) + name);
  std::error_code ignored;
  fs::remove_all(unfinished, ignored);
  try {
    std::error_code error;
    fs::create_directory(unfinished, error);
    require(!error, ErrorCode::io, "cannot create {}: {}", unfinished.string(), error.message());
    write_folder(unfinished, training, tokenizer, state);
    if (fs::exists(target)) remove_folder(target);  // of a part of the run that did not live to use it
    move(unfinished, target);
    sync(out);
    write_text(out / "latest", name + "\n");
  } catch (...) {
    fs::remove_all(unfinished, ignored);
    throw;
  }
  const auto all = checkpoints(out);
  for (size_t i = keep; keep > 0 && i < all.size(); ++i) remove_folder(all[i].second);
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
    } catch (const Error& error) {
      warn(error.what());
    }
  }
  return std::nullopt;
}

void restore_checkpoint(const CheckpointFolder& checkpoint, Training& training) {
  const at::NoGradGuard no_graph;
  const TrainedModel saved = load_model(checkpoint.path);
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
  for (auto& [table, optimiser] : training.row_optimisers) {
    const std::string prefix = "table." + table + ".";
    NamedTensors own;
    for (const auto& [name, tensor] : tensors)
      if (name.starts_with(prefix)) own[name.substr(prefix.size())] = tensor;
    optimiser.restore(own);
    Tensor& values = training.tables.at(table).values();
    if (const auto exact = own.find("rows"); exact != own.end()) {
      require(exact->second.sizes() == values.sizes(), ErrorCode::mismatch,
              "{}: the table \"{}\" has another shape", checkpoint.path.string(), table);
      values.copy_(exact->second);
    } else {
      values.copy_(load_table(checkpoint.path / training.config.tables.at(table).file).rows.values());
    }
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
