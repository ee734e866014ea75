#include "model/load.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>

#include "core/checked.h"
#include "model/activation_policy.h"
#include "model/checkpoint.h"
#include "model/expert_shares.h"
#include "model/expert_store.h"
#include "model/load_tokenizer.h"
#include "model/pack_weights.h"
#include "model/rope_frequencies.h"
#include "model/tensor_names.h"
#include "simd/blocks.h"
#include "simd/code_residuals.h"
#include "simd/stripes.h"

namespace mneme {
namespace {

// Rows that one call of the packer takes: enough to amortise the hand-out of work, few enough to share
// evenly.
constexpr int64_t kTilesPerTask = 16;

class Loader {
 public:
  Loader(const std::string& path, const LoadOptions& options)
      : options_(options),
        checkpoint_(open_checkpoint(path, options.mmap ? LoadMode::mmap : LoadMode::read)) {
    if (!options.type.empty()) {
      const auto type = dtype_from_name(options.type);
      if (!type || !can_quantize(*type))
        fail(ErrorCode::invalid_argument,
             "cannot hold weights as \"{}\"; types are f32, f16, bf16, q8_0, q4_0, q4_1", options.type);
      wanted_ = *type;
    }
    require(options.experts != Placement::automatic && options.experts != Placement::cache,
            ErrorCode::invalid_argument, "experts can be in ram, mmap or direct, not in {}",
            to_string(options.experts));
    require(options.experts == Placement::ram || options.mmap, ErrorCode::invalid_argument,
            "experts in {} are for models larger than memory; do not read the whole file first",
            to_string(options.experts));
  }

  std::unique_ptr<ModelImpl> load(const std::string& path, std::vector<OpenedMemory> packs) {
    auto model = std::make_unique<ModelImpl>();
    model->config = checkpoint_.config();
    model->path = path;
    if (!options_.type.empty()) model->load_choices += "type " + options_.type + "\n";
    if (options_.activation) {
      validate(*options_.activation, "activation");
      model->load_choices += "activation " + options_.activation->to_json() + "\n";
    }
    model->expert_group = options_.expert_group;
    model->pool = std::make_shared<ThreadPool>(options_.threads > 0 ? options_.threads : available_cores());
    model_ = model.get();
    if (model->expert_group) check_shares(model->config, path, *model->expert_group);
    if (serves()) {
      load_served_experts();
      return model;
    }
    model->tokenizer = load_tokenizer(checkpoint_);
    attach(std::move(packs));
    plan_memory();
    plan_modules();
    load_vectors();
    for (const size_t layer : model->memory_layers) load_module_vectors(layer);
    load_matrices();
    if (!experts_.empty()) open_experts();
    connect_head();
    model->unused_tensors = checkpoint_.leftovers();
    count_bytes();
    model->plan = compile_plan(*model);
    return model;
  }

 private:
  struct Matrix {
    const TensorInfo* tensor;
    const TensorSource* source;
    DType type;  // to pack as
    PackedMatrix* out;
    uint64_t offset;
    std::string name;
    const TensorInfo* scales = nullptr;  // of W8: codes are held, not floats
    uint32_t experts = 1;                // of so many like it, this is one
    bool read = true;                    // counted as read for a token: of experts as many as it chooses
  };

  struct Located {
    const TensorInfo* info;
    const TensorSource* source;
  };
  /// A tensor of the checkpoint, or of a module that a pack brings; without either, {nullptr, nullptr}.
  Located find(const std::string& name) const {
    if (const TensorInfo* found = checkpoint_.find(name)) return {found, &checkpoint_.tensors()};
    for (const size_t layer : model_->memory_layers) {
      const TensorSource* pack = module_tensors_[layer].get();
      if (pack == nullptr || !name.starts_with(fmt::format("blk.{}.engram_", layer))) continue;
      if (const TensorInfo* found = pack->find(name)) return {found, pack};
    }
    return {nullptr, nullptr};
  }
  Located tensor(const std::string& name) const {
    const Located found = find(name);
    require(found.info != nullptr, ErrorCode::corrupt, "{} has no tensor {}", model_->path, name);
    return found;
  }

  void attach(std::vector<OpenedMemory> packs) {
    const std::string& path = model_->path;
    Memories memories = attach_memories(model_->config, path, model_->tokenizer.get(), std::move(packs),
                                        options_, [&path] { return checkpoint_hash(path); });
    model_->memory_tables = std::move(memories.tables);
    model_->extended = memories.from_packs;
    module_tensors_ = std::move(memories.module_tensors);
    for (size_t i = 0; i < model_->config.layers.size(); ++i)
      if (model_->config.layers[i].memory) model_->memory_layers.push_back(i);
  }

  // A float checkpoint takes the type asked for, where its rows divide into blocks; a quantized one stays as
  // it is.
  DType packed_as(const TensorInfo& info, const std::string& name) const {
    const bool is_float = !dtype_info(info.type).quantized;
    if (!wanted_ || !is_float || is_router(name)) return info.type;
    return info.shape[1] % dtype_info(*wanted_).block_size == 0 ? *wanted_ : info.type;
  }

  /// Routers stay as they are in the file: they are small, and a choice turns on little.
  static bool is_router(const std::string& name) { return name.ends_with(".ffn_gate_inp.weight"); }

  /// `spiking`: its inputs are spikes, so that it is held in stripes if its type can be.
  void add_matrix(const std::string& name, PackedMatrix& out, bool spiking = false) {
    const auto [found, source] = tensor(name);
    const TensorInfo& info = *found;
    require(info.shape.size() == 2, ErrorCode::corrupt, "tensor {} has {} dimensions instead of 2", name,
            info.shape.size());
    // Codes multiply spikes only; for other inputs the rounded weights are held as floats.
    const TensorInfo* scales =
        spiking && source == &checkpoint_.tensors() ? checkpoint_.scales_of(info) : nullptr;
    const DType type = scales != nullptr ? info.type : packed_as(info, name);
    out.type = scales != nullptr ? PackedType::w8 : packed_type(type);
    out.rows = static_cast<int64_t>(info.shape[0]);
    out.cols = static_cast<int64_t>(info.shape[1]);
    if (spiking && can_stripe(out.type)) out.stripe_lines = best_stripe_lines(out.type, out.rows);
    if (elsewhere_) return;
    planned_->push_back({&info, source, type, &out, arena_, name, scales});
    if (planned_ == &experts_) return;
    arena_ = checked_align(checked_add(arena_, matrix_bytes(out), "weights"), 64, "weights");
  }

  void add_linear(const std::string& name, const ActivationConfig& activation, Linear& out) {
    add_matrix(name + ".weight", out.w, activation.type == Activation::spike);
    out.name = name.substr(name.rfind('.') + 1);
    out.input = input_form(activation.type, out.w);
    out.neuron = neuron_of(activation);
    if (find(name + ".bias").info != nullptr) out.bias = vector(name + ".bias", out.w.rows);
  }

  const ActivationPolicy& policy(size_t layer) const {
    return options_.activation ? *options_.activation : model_->config.layers[layer].activation;
  }

  void plan_memory() {
    const ModelConfig& config = model_->config;
    model_->layers.resize(config.layers.size());
    add_matrix("token_embd.weight", model_->embedding);
    for (size_t i = 0; i < config.layers.size(); ++i) {
      const std::string block = fmt::format("blk.{}.", i);
      const ActivationPolicy& activation = policy(i);
      LayerWeights& w = model_->layers[i];
      const auto branches = config.layers[i].mixer.branches();
      w.mixers.resize(branches.size());
      for (size_t b = 0; b < branches.size(); ++b) {
        model_->mixers.push_back({i, b});
        plan_mixer(branches[b], mixer_prefix(block, config.layers[i].mixer, b), activation, w.mixers[b]);
      }
      if (config.layers[i].ffn.moe())
        plan_experts(i, block, activation, w.moe.emplace());
      else
        plan_feed_forward(block, "", activation, w.gate, w.up, w.down);
    }
    if (!config.tied) add_matrix("output.weight", model_->head.w);
  }

  void plan_feed_forward(const std::string& block, const std::string& suffix,
                         const ActivationPolicy& activation, Linear& gate, Linear& up, Linear& down) {
    add_linear(block + "ffn_gate" + suffix, activation[Projection::gate], gate);
    add_linear(block + "ffn_up" + suffix, activation[Projection::up], up);
    add_linear(block + "ffn_down" + suffix, activation[Projection::down], down);
    share_neurons({&gate, &up});
  }

  /// Whether this process serves experts to another one, and needs nothing else.
  bool serves() const { return options_.expert_group != nullptr && options_.expert_group->rank() > 0; }

  void load_served_experts() {
    model_->layers.resize(model_->config.layers.size());
    for (size_t i = 0; i < model_->layers.size(); ++i)
      if (model_->config.layers[i].ffn.moe())
        plan_experts(i, fmt::format("blk.{}.", i), policy(i), model_->layers[i].moe.emplace());
    load_matrices();
    model_->bytes.disk = checkpoint_.tensors().file_bytes();
  }

  /// An expert's matrices lie side by side in memory, so that reading one is three streams of one place.
  void plan_experts(size_t layer, const std::string& block, const ActivationPolicy& activation,
                    MoeWeights& moe) {
    const FfnConfig& ffn = model_->config.layers[layer].ffn;
    require(!options_.expert_group || options_.experts == Placement::ram, ErrorCode::unsupported,
            "experts that are divided among processes are held in memory; leave out --experts {}",
            to_string(options_.experts));
    moe.own = own_experts(options_.expert_group.get(), ffn);
    if (!serves()) add_linear(block + "ffn_gate_inp", Activation::float_, moe.router);
    if (ffn.shared > 0 && !serves())
      plan_feed_forward(block, "_shexp", activation, moe.shared.gate, moe.shared.up, moe.shared.down);
    moe.experts.resize(ffn.experts);
    if (options_.experts != Placement::ram) planned_ = &experts_;
    const size_t first = planned_->size();  // three of each expert follow
    for (uint32_t e = 0; e < ffn.experts; ++e) {
      ExpertWeights& expert = moe.experts[e];
      elsewhere_ = !moe.own.holds(static_cast<int32_t>(e));
      plan_feed_forward(block, fmt::format(".{}", e), activation, expert.gate, expert.up, expert.down);
      for (const auto& [projection, name] : {std::pair(&ExpertWeights::gate, "ffn_gate_exps"),
                                             {&ExpertWeights::up, "ffn_up_exps"},
                                             {&ExpertWeights::down, "ffn_down_exps"}}) {
        Linear& mine = expert.*projection;
        const Linear& zero = moe.experts.front().*projection;
        mine.name = name;
        require(mine.input == zero.input, ErrorCode::unsupported,
                "{}{}: expert {} holds {}, but expert 0 {}; this version needs one kind of number for all",
                block, name, e, packed_layout(mine.w.type).name, packed_layout(zero.w.type).name);
      }
    }
    elsewhere_ = false;
    for (size_t m = first; m < planned_->size(); ++m) {
      (*planned_)[m].experts = ffn.experts;
      (*planned_)[m].read = (m - first) / 3 < (ffn.top_k * moe.own.count() + ffn.experts - 1) / ffn.experts;
    }
    planned_ = &matrices_;
  }

  void plan_mixer(const MixerConfig& mixer, const std::string& block, const ActivationPolicy& activation,
                  MixerWeights& w) {
    add_linear(block + "attn_q", activation[Projection::q], w.q);
    add_linear(block + "attn_k", activation[Projection::k], w.k);
    add_linear(block + "attn_v", activation[Projection::v], w.v);
    if (mixer.type == MixerType::gla && mixer.gate != GateType::tied)
      add_linear(block + "attn_gate_a", activation[Projection::recurrence], w.gate);
    if (mixer.type == MixerType::delta) {
      add_linear(block + "attn_decay", activation[Projection::recurrence], w.decay);
      add_linear(block + "attn_beta", activation[Projection::recurrence], w.beta);
    }
    add_linear(block + "attn_output", activation[Projection::o], w.o);
    share_neurons(w.inputs());
    if (mixer.softmax()) w.rope = rope_index(mixer.rope.value_or(model_->config.rope), mixer.head_dim);
  }

  void plan_modules() {
    const ModelConfig& config = model_->config;
    size_t modules = 0, convs = 0;
    for (const size_t layer : model_->memory_layers) {
      const auto& memory = config.layers[layer].memory;
      if (!memory) continue;
      const EngramModuleConfig& module = *memory;
      MemoryWeights& w = model_->layers[layer].memory.emplace();
      w.index = modules++;
      if (module.conv) w.conv_index = convs++;
      const auto& tables = model_->memory_tables;
      const auto table = std::find_if(tables.begin(), tables.end(),
                                      [&](const LoadedTable& t) { return t.name == module.table; });
      w.table = static_cast<size_t>(table - tables.begin());
      w.table_layer = table->hash.layer_index(module.layer_id);
      const std::string block = fmt::format("blk.{}.", layer);
      add_linear(block + "engram_k", policy(layer)[Projection::memory], w.k);
      add_linear(block + "engram_v", policy(layer)[Projection::memory], w.v);
      share_neurons({&w.k, &w.v});
    }
  }

  void load_module_vectors(size_t layer) {
    const auto& described = model_->config.layers[layer].memory;
    auto& loaded = model_->layers[layer].memory;
    if (!described || !loaded) return;
    const EngramModuleConfig& module = *described;
    const int64_t d = model_->config.d_model;
    const std::string block = fmt::format("blk.{}.engram_", layer);
    MemoryWeights& w = *loaded;
    w.gate = vector(block + "k_norm.weight", d, module.norm_offset);
    const std::vector<float> query = vector(block + "q_norm.weight", d, module.norm_offset);
    for (size_t i = 0; i < query.size(); ++i) w.gate[i] *= query[i];
    if (!module.conv) return;
    w.conv_norm = vector(block + "conv_norm.weight", d, module.norm_offset);
    const int64_t kernel = module.conv->kernel;
    const std::vector<float> conv = vector(block + "conv.weight", d * kernel);
    w.conv.resize(conv.size());
    for (int64_t c = 0; c < d; ++c)
      for (int64_t j = 0; j < kernel; ++j)
        w.conv[static_cast<size_t>(j * d + c)] = conv[static_cast<size_t>(c * kernel + j)];
  }

  void load_router_vectors(const FfnConfig& ffn, const std::string& block, MoeWeights& moe) {
    if (ffn.selection_bias) moe.selection_bias = vector(block + "exp_probs_b.bias", ffn.choices());
    if (ffn.shared_gate)
      moe.shared_gate = vector(block + "ffn_gate_inp_shexp.weight", model_->config.d_model);
  }

  std::vector<float> vector(const std::string& name, int64_t size, double offset = 0) {
    const auto [found, source] = tensor(name);
    const TensorInfo& info = *found;
    require(info.values() == static_cast<uint64_t>(size), ErrorCode::corrupt,
            "tensor {} has {} values instead of {}", name, info.values(), size);
    std::vector<float> out(static_cast<size_t>(size));
    dequantize_row(info.type, source->data(info).data(), out.data(), out.size());
    for (float& value : out) {
      require(std::isfinite(value), ErrorCode::corrupt, "tensor {} of {} holds NaN or infinite weights", name,
              model_->path);
      value += static_cast<float>(offset);
    }
    describe(info, name, "f32 vector");
    model_->bytes.resident += out.size() * sizeof(float);
    return out;
  }

  void load_vectors() {
    const ModelConfig& config = model_->config;
    const int64_t d = config.d_model;
    const double offset = config.norm.weight_offset;
    model_->output_norm = vector("output_norm.weight", d, offset);
    for (size_t i = 0; i < config.layers.size(); ++i) {
      const std::string block = fmt::format("blk.{}.", i);
      const LayerConfig& layer = config.layers[i];
      LayerWeights& w = model_->layers[i];
      w.attn_norm = vector(block + "attn_norm.weight", d, offset);
      w.ffn_norm = vector(block + "ffn_norm.weight", d, offset);
      if (layer.post_norm) {
        w.post_attn_norm = vector(block + "post_attention_norm.weight", d, offset);
        w.post_ffn_norm = vector(block + "post_ffw_norm.weight", d, offset);
      }
      for (size_t b = 0; b < w.mixers.size(); ++b)
        load_mixer_vectors(layer.mixer.branches()[b], mixer_prefix(block, layer.mixer, b), w.mixers[b]);
      if (layer.mixer.type == MixerType::parallel) load_branches(layer.mixer, block, w.mixers);
      if (w.moe) load_router_vectors(layer.ffn, block, *w.moe);
    }
    if (config.sink_tokens > 0)
      model_->sink_embeddings = vector("sink_embd.weight", d * int64_t{config.sink_tokens});
  }

  void load_mixer_vectors(const MixerConfig& mixer, const std::string& block, MixerWeights& w) {
    const double offset = model_->config.norm.weight_offset;
    const int64_t kv = int64_t{mixer.kv_heads} * mixer.head_dim;
    if (mixer.qk_norm) {
      const bool all = mixer.qk_norm_over == QkNormOver::all;
      w.q_norm =
          vector(block + "attn_q_norm.weight", (all ? int64_t{mixer.heads} : 1) * mixer.head_dim, offset);
      w.k_norm = vector(block + "attn_k_norm.weight", all ? kv : int64_t{mixer.head_dim}, offset);
    }
    if (mixer.sink_logits) w.sinks = vector(block + "attn_sinks.weight", mixer.heads);
    if (mixer.type == MixerType::gla && mixer.gate == GateType::low_rank) {
      const int64_t rank = mixer.gate_rank;
      const std::vector<float> up = vector(block + "attn_gate_b.weight", kv * rank);
      w.gate_up.resize(up.size());
      for (int64_t i = 0; i < kv * rank; ++i)
        w.gate_up[static_cast<size_t>(i % rank * kv + i / rank)] = up[static_cast<size_t>(i)];
      w.gate_bias = vector(block + "attn_gate_b.bias", kv);
    }
    if (mixer.type == MixerType::delta) {
      w.a_log = vector(block + "attn_a_log.weight", mixer.kv_heads);
      w.dt_bias = vector(block + "attn_dt_bias.weight", mixer.kv_heads);
    }
    if (mixer.recurrent() && mixer.out_norm)
      w.out_norm = vector(block + "attn_out_norm.weight", mixer.head_dim, offset);
  }

  void load_branches(const MixerConfig& mixer, const std::string& block, std::vector<MixerWeights>& mixers) {
    std::vector<float> weights(mixer.weights.begin(), mixer.weights.end());
    if (mixer.learned) weights = vector(block + "mix_weights.weight", std::ssize(mixers));
    for (size_t b = 0; b < mixers.size(); ++b) {
      mixers[b].branch_norm = vector(fmt::format("{}mix{}_norm.weight", block, b), model_->config.d_model,
                                     model_->config.norm.weight_offset);
      mixers[b].branch_weight = weights[b];
    }
  }

  size_t rope_index(const RopeConfig& rope, uint32_t head_dim) {
    const auto key = std::pair(rope, head_dim);
    for (size_t i = 0; i < ropes_.size(); ++i)
      if (ropes_[i] == key) return i;
    ropes_.push_back(key);
    model_->ropes.push_back({rope_inverse_frequencies(rope, head_dim),
                             static_cast<float>(rope_attention_factor(rope)),
                             rope.style == RopeConfig::Style::half});
    return ropes_.size() - 1;
  }

  void load_matrices() {
    model_->weights = HugeBuffer(arena_);
    uint64_t total = 0, done = 0;
    for (const Matrix& m : matrices_) total += m.tensor->bytes;
    for (const Matrix& m : matrices_) {
      m.out->data = model_->weights.data() + m.offset;
      pack(m);
      m.source->release(*m.tensor);
      done += m.tensor->bytes;
      if (options_.progress) options_.progress(done, total);
    }
  }

  /// Experts that stay on disk: in a file as kernels read them, which is made on first use.
  void open_experts() {
    const ExpertLayout layout = expert_layout(*model_);
    const ExpertFileName name = expert_file_name(layout, checkpoint_.tensors().paths());
    if (!expert_file_is_current(name, layout)) write_experts(name, layout);
    for (const Matrix& m : experts_) describe_expert(m, layout_text(*m.out) + ", read when chosen");
    ExpertStoreOptions options;
    options.placement = options_.experts;
    options.budget_bytes = options_.experts_budget;
    options.read_ahead = options_.experts_read_ahead;
    model_->expert_store = std::make_shared<ExpertStore>(*model_, layout, name.path, options);
    if (options_.experts == Placement::direct)
      model_->bytes.resident += model_->expert_store->resident_bytes();
    else
      model_->bytes.mapped += layout.file_bytes;
  }

  void write_experts(const ExpertFileName& name, const ExpertLayout& layout) {
    uint64_t done = 0;
    write_expert_file(name, layout, [&](size_t layer, uint32_t expert, std::span<std::byte> record) {
      for (size_t i = 0; i < 3; ++i) {
        const Matrix& m = experts_[3 * (layout.layers[layer].first + expert) + i];
        require(m.scales == nullptr, ErrorCode::unsupported,
                "{}: experts of W8ASpike have parts beside their codes, which this version keeps in memory; "
                "use --experts ram",
                m.name);
        pack_values(m, record.data() + layout.layers[layer].at[i]);
        m.source->release(*m.tensor);
      }
      done += record.size();
      if (options_.progress) options_.progress(done, layout.file_bytes);
    });
  }

  /// A matrix W8: int8 codes, and the rest of the few that are beyond.
  void pack_codes(const Matrix& m) {
    const auto* weights =
        reinterpret_cast<const float*>(m.source->data(*m.tensor).data());  // RoundedWeights'
    std::vector<float> scales(m.scales->values());
    dequantize_row(m.scales->type, m.source->data(*m.scales).data(), scales.data(), scales.size());
    const int64_t unit = stripe_tiles(*m.out), stripes = (m.out->tiles() + unit - 1) / unit;
    auto residuals = std::make_unique<CodeResiduals>(stripes);
    auto* out = const_cast<std::byte*>(m.out->data);
    std::atomic<bool> fits{true};
    model_->pool->for_each(stripes, [&](int64_t stripe) {
      if (!pack_w8_stripes(*m.out, weights, scales.data(), stripe, stripe + 1, out, *residuals))
        fits.store(false, std::memory_order_relaxed);
    });
    require(fits.load(), ErrorCode::corrupt, "tensor {} of {} holds weights beyond its scales", m.name,
            model_->path);
    const uint64_t beyond = residuals->count();
    describe(*m.tensor, m.name,
             fmt::format("{}, in stripes, {} codes beyond int8", packed_layout(m.out->type).name, beyond));
    model_->bytes.resident += matrix_bytes(*m.out);
    if (beyond == 0) return;
    m.out->residuals = residuals.get();
    model_->bytes.resident += residuals->bytes();
    model_->residuals.push_back(std::move(residuals));
  }

  void pack(const Matrix& m) {
    if (m.scales != nullptr) return pack_codes(m);
    pack_values(m, const_cast<std::byte*>(m.out->data));
    const std::string text = layout_text(*m.out);
    m.experts > 1 ? describe_expert(m, text) : describe(*m.tensor, m.name, text);
    model_->bytes.resident += matrix_bytes(*m.out);
  }

  static std::string layout_text(const PackedMatrix& w) {
    return std::string(packed_layout(w.type).name) + (w.stripe_lines > 0 ? ", in stripes" : "");
  }

  /// Packs a matrix to `out`, which is zeroed.
  void pack_values(const Matrix& m, std::byte* out) {
    const std::byte* source = m.source->data(*m.tensor).data();
    std::atomic<bool> finite{true};
    model_->pool->for_each((m.out->tiles() + kTilesPerTask - 1) / kTilesPerTask, [&](int64_t task) {
      const int64_t begin = task * kTilesPerTask, end = std::min(begin + kTilesPerTask, m.out->tiles());
      const bool ok = pack_weights(*m.out, m.tensor->type, m.type, source, begin, end, out);
      if (!ok) finite.store(false, std::memory_order_relaxed);
    });
    require(finite.load(), ErrorCode::corrupt, "tensor {} of {} holds NaN or infinite weights", m.name,
            model_->path);
  }

  void connect_head() {
    Linear& head = model_->head;
    if (model_->config.tied) head.w = model_->embedding;
    head.name = model_->config.tied ? "token_embd" : "output";
    head.input = input_form(head_activation(options_.activation), head.w);
    if (checkpoint_.find("output.bias") != nullptr) head.bias = vector("output.bias", head.w.rows);
  }

  void describe(const TensorInfo& info, const std::string& name, std::string_view layout) {
    model_->tensors.push_back(
        {name, std::string(dtype_info(info.type).name), std::string(layout), info.shape, info.bytes});
  }

  /// The experts of a layer stand together in one line, as in GGUF files: blk.0.ffn_up_exps.weight.
  void describe_expert(const Matrix& m, const std::string& layout) {
    const auto expert = expert_tensor_name_of(m.name);
    if (!expert) fail(ErrorCode::internal, "{} is not the matrix of an expert", m.name);
    const std::string name = expert->stacked();
    auto& all = model_->tensors;
    const auto same = [&](const TensorDescription& t) { return t.name == name; };
    const auto at = std::find_if(all.end() - std::min<ptrdiff_t>(3, std::ssize(all)), all.end(), same);
    if (at != all.end()) {
      at->bytes += m.tensor->bytes;
      return;
    }
    std::vector<uint64_t> shape{m.experts};
    shape.insert(shape.end(), m.tensor->shape.begin(), m.tensor->shape.end());
    all.push_back({name, std::string(dtype_info(m.tensor->type).name), layout, shape, m.tensor->bytes});
  }

  void count_bytes() {
    model_->bytes.disk = checkpoint_.tensors().file_bytes();
    uint64_t sum = 0;
    for (const Matrix& m : experts_)
      if (m.read) sum += matrix_bytes(*m.out);
    for (const Matrix& m : matrices_) {
      const bool lookup_only = m.out == &model_->embedding && !model_->config.tied;
      if (lookup_only || !m.read) continue;
      sum += matrix_bytes(*m.out);
      if (m.out->residuals != nullptr) sum += m.out->residuals->bytes();
    }
    for (const size_t layer : model_->memory_layers) {
      const auto& memory = model_->layers[layer].memory;
      if (!memory) continue;
      const auto& table = model_->memory_tables[memory->table];
      sum += uint64_t{table.hash.config().rows_per_token()} * table.rows->row_bytes();
    }
    model_->bytes_per_token = sum;
    for (const LoadedTable& table : model_->memory_tables) {
      model_->bytes.resident += table.rows->resident_bytes();
      model_->bytes.disk += table.rows->bytes();
      if (table.rows->placement() == Placement::mmap) model_->bytes.mapped += table.rows->bytes();
    }
  }

  const LoadOptions& options_;
  Checkpoint checkpoint_;
  std::optional<DType> wanted_;
  ModelImpl* model_ = nullptr;
  std::vector<Matrix> matrices_;
  std::vector<Matrix> experts_;  // that stay on disk: gate, up and down of each
  std::vector<Matrix>* planned_ = &matrices_;
  std::vector<std::pair<RopeConfig, uint32_t>> ropes_;
  std::vector<std::shared_ptr<const TensorSource>> module_tensors_;  // [layer], of packs
  uint64_t arena_ = 0;
  bool elsewhere_ = false;  // matrices are described, because another process holds them
};

}  // namespace

void share_neurons(const std::vector<Linear*>& readers) {
  std::vector<NeuronSetting> neurons;
  for (Linear* linear : readers) {
    if (!is_spiking(linear->input)) continue;
    const auto at = std::find(neurons.begin(), neurons.end(), linear->neuron);
    linear->spike_slot = static_cast<size_t>(at - neurons.begin());
    if (at == neurons.end()) neurons.push_back(linear->neuron);
  }
}

std::unique_ptr<ModelImpl> load_model(const std::string& path, const LoadOptions& options) {
  return load_model(path, options, open_memories(options));
}

std::unique_ptr<ModelImpl> load_model(const std::string& path, const LoadOptions& options,
                                      std::vector<OpenedMemory> memories) {
  return Loader(path, options).load(path, std::move(memories));
}

}  // namespace mneme
