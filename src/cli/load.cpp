#include <fmt/format.h>

#include "cli/options.h"
#include "cli/progress.h"
#include "cli/store.h"
#include "cli/terminal.h"
#include "core/file.h"
#include "cost/machine.h"

namespace mneme::cli {

std::shared_ptr<const Model> load_model(const ModelOptions& model, const CommonOptions& common) {
  LoadOptions options = load_options(model, common);
  const std::string path = resolve_model(model.model).string();
  Progress bar("Loading", Progress::Unit::bytes, !common.quiet);
  options.progress = [&bar](uint64_t done, uint64_t total) { bar.update(done, total); };
  return Model::load(path, options);
}

std::string model_name(const ModelConfig& config, const std::string& path) {
  if (!config.name.empty()) return config.name;
  const fs::path whole(path);
  return (whole.has_filename() ? whole : whole.parent_path()).filename().string();  // "folder/"
}

std::string describe_model(const Model& model) {
  const ModelBytes bytes = model.bytes();
  std::string line = fmt::format(
      "{}, {} thread{}, {} resident, {} mapped, {} on disk", model.isa(), model.threads(),
      model.threads() == 1 ? "" : "s", human_bytes(static_cast<double>(bytes.resident)),
      human_bytes(static_cast<double>(bytes.mapped)), human_bytes(static_cast<double>(bytes.disk)));
  const auto machine = cached_machine();
  if (!machine) return line + "; `mneme doctor` measures what speed the memory allows";
  const double rate =
      machine->read_gbps * 1e9 / static_cast<double>(std::max<uint64_t>(1, model.bytes_per_token()));
  return line + fmt::format("; memory bandwidth allows about {:.0f} tokens/s (estimate)", rate);
}

void print_start(const Model& model) {
  fmt::print(stderr, "{}\n", describe_model(model));
  for (const MemoryDescription& memory : model.memories())
    fmt::print(stderr, "memory of layer{} {}: {}\n", memory.layers.size() == 1 ? "" : "s",
               fmt::join(memory.layers, ", "), memory.text);
  if (const auto experts = model.experts())
    fmt::print(stderr, "experts: {}, {} of {} in memory ({}), from {}\n", experts->placement, experts->slots,
               experts->experts, human_bytes(static_cast<double>(experts->resident)), experts->path);
}

Json experts_json(const ExpertStatistics& experts) {
  return {{"placement", experts.placement},
          {"path", experts.path},
          {"experts", experts.experts},
          {"slots", experts.slots},
          {"expert_bytes", experts.expert_bytes},
          {"resident_bytes", experts.resident},
          {"hits", experts.hits},
          {"misses", experts.misses},
          {"hit_rate", experts.hit_rate()},
          {"bytes_read", experts.bytes_read},
          {"read_ahead", experts.ahead},
          {"read_ahead_used", experts.ahead_used}};
}

void add_experts(Json& json, const Model& model) {
  if (const auto experts = model.experts()) json["experts"] = experts_json(*experts);
}

void print_experts(const Model& model) {
  const auto experts = model.experts();
  if (!experts) return;
  fmt::print(stderr, "experts: {} of {} in memory, {:.1f} % of {} uses found there, {} read\n",
             experts->slots, experts->experts, 100 * experts->hit_rate(), experts->hits + experts->misses,
             human_bytes(static_cast<double>(experts->bytes_read)));
}

}  // namespace mneme::cli
