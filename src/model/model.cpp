#include "mneme/model.h"

#include "core/fail.h"
#include "core/sha256.h"
#include "model/expert_store.h"
#include "model/load.h"
#include "model/model_impl.h"
#include "simd/isa.h"

namespace mneme {

std::shared_ptr<const Model> Model::load(const std::string& path, const LoadOptions& options) {
  active_isa();  // a wrong MNEME_ISA is reported before any work
  return std::shared_ptr<const Model>(new Model(load_model(path, options)));
}

Model::Model(std::unique_ptr<ModelImpl> impl) : impl_(std::move(impl)) {}
Model::~Model() = default;

const ModelConfig& Model::config() const noexcept {
  return impl_->config;
}
bool Model::has_tokenizer() const noexcept {
  return impl_->tokenizer != nullptr;
}
const Tokenizer& Model::tokenizer() const {
  require(has_tokenizer(), ErrorCode::not_found,
          "{} carries no tokenizer; pass token ids with --ids, or use a model file that has one", path());
  return *impl_->tokenizer;
}
const std::string& Model::path() const noexcept {
  return impl_->path;
}
int Model::threads() const noexcept {
  return impl_->pool->size();
}
std::string_view Model::isa() const noexcept {
  return to_string(active_isa());
}
ModelBytes Model::bytes() const noexcept {
  return impl_->bytes;
}
std::vector<TensorDescription> Model::tensors() const {
  return impl_->tensors;
}
const std::vector<std::string>& Model::unused_tensors() const noexcept {
  return impl_->unused_tensors;
}
std::vector<MemoryDescription> Model::memories(bool residency) const {
  std::vector<MemoryDescription> out;
  for (size_t t = 0; t < impl_->memory_tables.size(); ++t) {
    const LoadedTable& table = impl_->memory_tables[t];
    MemoryDescription& memory = out.emplace_back();
    memory.name = table.name;
    memory.path = table.path;
    memory.placement = to_string(table.rows->placement());
    memory.text = table.rows->describe();
    for (const size_t layer : impl_->memory_layers)
      if (impl_->layers[layer].memory->table == t) memory.layers.push_back(static_cast<uint32_t>(layer));
    memory.rows = table.rows->rows();
    memory.bytes = table.rows->bytes();
    memory.resident = table.rows->resident_bytes();
    if (residency) memory.resident_fraction = table.rows->resident_fraction();
    memory.statistics = table.rows->statistics();
  }
  return out;
}

std::optional<ExpertStatistics> Model::experts() const {
  if (!impl_->expert_store) return {};
  return impl_->expert_store->statistics();
}

uint64_t Model::bytes_per_token() const noexcept {
  return impl_->bytes_per_token;
}

uint64_t Model::kv_bytes_per_token(double kv_type_bytes) const noexcept {
  double sum = 0;
  for (const LayerConfig& layer : impl_->config.layers)
    for (const MixerConfig& mixer : layer.mixer.branches())
      if (mixer.softmax())
        sum += 2.0 * mixer.kv_heads * mixer.head_dim * (mixer.kv_int8 ? 1.0 : kv_type_bytes);
  return static_cast<uint64_t>(sum);
}

bool Model::state_is_bounded() const noexcept {
  const auto keeps_all = [](const MixerConfig& mixer) {
    return mixer.type == MixerType::full || mixer.type == MixerType::sparse;
  };
  for (const LayerConfig& layer : impl_->config.layers)
    for (const MixerConfig& branch : layer.mixer.branches())
      if (keeps_all(branch)) return false;
  return true;
}

std::string Model::describe_plan(bool prefill) const {
  std::string text;
  for (const auto& stage : prefill ? impl_->plan.prefill : impl_->plan.decode)
    text += stage->describe() + "\n";
  return text;
}

const std::string& Model::hash() const {
  const std::lock_guard lock(impl_->hash_mutex);
  if (!impl_->hash.empty()) return impl_->hash;
  std::string hash = checkpoint_hash(impl_->path);
  if (!impl_->memory_tables.empty()) {  // with other rows it is another model
    Sha256 all;
    all.update(hash + "\n").update(impl_->config.to_json() + "\n");
    for (const LoadedTable& table : impl_->memory_tables)
      all.update(fmt::format("{} {}\n", table.name, table.fingerprint));
    hash = all.hex();
  }
  if (!impl_->load_choices.empty()) hash = Sha256().update(hash + "\n").update(impl_->load_choices).hex();
  impl_->hash = std::move(hash);
  return impl_->hash;
}

}  // namespace mneme
