#include "eval/nir_export.h"

#include <algorithm>
#include <limits>
#include <set>

#include "core/checked.h"
#include "core/fail.h"
#include "eval/hdf5_writer.h"
#include "model/projection_probe.h"
#include "simd/stripes.h"

namespace mneme {
namespace {

constexpr std::string_view kFormatVersion = "1.0.8";  // of the nir package whose files these are like

// The nodes of a record are named after their projections: "q.k.v.in" is the input of q, k and v; "q" is the
// linear map, "q.sum" the integrator, "q.out" the output.
std::string input_node(const SpikeRecord& record) {
  return fmt::format("{}.in", fmt::join(record.names, "."));
}

const Linear& find_linear(const ModelImpl& model, size_t layer, const std::string& name) {
  for (const ProbeSite& site : probe_sites(model))
    if (site.layer == layer)
      for (const ProbeSite::Reader& reader : site.readers)
        if (reader.name == name) return *reader.linear;
  fail(ErrorCode::not_found, "layer {} has no projection \"{}\"", layer, name);
}

std::vector<float> weights_of(const Linear& linear) {
  std::vector<float> weights(
      checked_mul(static_cast<uint64_t>(linear.w.rows), static_cast<uint64_t>(linear.w.cols), "weights"));
  for (int64_t r = 0; r < linear.w.rows; ++r) {
    float* row = weights.data() + r * linear.w.cols;
    if (linear.w.stripe_lines > 0)
      unpack_striped_row(linear.w, r, row);
    else
      unpack_row(linear.w, r, 0, linear.w.cols, row);
  }
  return weights;
}

void check_expressible(const ModelImpl& model, std::span<const SpikeRecord> records, SpikeCode code) {
  require(!records.empty(), ErrorCode::invalid_argument, "a graph needs a projection");
  require(code == SpikeCode::binary || code == SpikeCode::ternary, ErrorCode::unsupported,
          "NIR cannot express {} spikes: none of its nodes weighs a spike by its time step; ternary and "
          "binary spikes "
          "count alike at every step",
          to_string(code));
  for (const SpikeRecord& record : records)
    for (const std::string& name : record.names)
      require(
          find_linear(model, record.layer, name).bias.empty(), ErrorCode::unsupported,
          "NIR cannot express the bias of {} in layer {}: its Affine node adds a bias at every time step, a "
          "projection once a token; choose projections without one",
          name, record.layer);
}

std::string write_graph(const ModelImpl& model, std::span<const SpikeRecord> records, SpikeCode code) {
  Hdf5Writer file;
  std::vector<std::string> edges;
  const std::string nodes = "/node/nodes/";
  const auto add = [&](const std::string& name, std::string_view type) {
    file.text(nodes + name + "/type", type);
    return nodes + name + "/";
  };
  const auto shape = [](int64_t width) { return std::vector<int64_t>{width}; };
  file.text("/version", kFormatVersion);
  file.text("/node/type", "NIRGraph");
  for (const SpikeRecord& record : records) {
    const std::string input = add(input_node(record), "Input");
    file.array(input + "shape", shape(record.width), {1});
    file.text(input + "metadata/k", fmt::format("{}", record.rule.k));
    file.text(input + "metadata/dead_zone", fmt::format("{}", record.rule.dead_zone));
    for (const std::string& name : record.names) {
      const Linear& linear = find_linear(model, record.layer, name);
      const auto rows = static_cast<uint64_t>(linear.w.rows), cols = static_cast<uint64_t>(linear.w.cols);
      file.array(add(name, "Linear") + "weight", weights_of(linear), {rows, cols});
      file.array(add(name + ".sum", "I") + "r", std::vector<float>(rows, 1.0f), {rows});
      file.array(add(name + ".out", "Output") + "shape", shape(linear.w.rows), {1});
      for (const auto& [from, to] :
           {std::pair{input_node(record), name}, {name, name + ".sum"}, {name + ".sum", name + ".out"}})
        edges.insert(edges.end(), {from, to});
    }
  }
  file.texts("/node/edges", edges, {edges.size() / 2, 2});
  const std::string metadata = "/node/metadata/";
  file.text(metadata + "model", model.config.name.empty() ? model.path : model.config.name);
  file.text(metadata + "layer", std::to_string(records.front().layer));
  file.text(metadata + "code", to_string(code));
  file.text(metadata + "neuron",
            "input spikes are recorded: threshold mean|x| / k of each token, subtracted by each spike; an "
            "output is V_th times "
            "the potential that its integrator ends with");
  return file.finish();
}

// ---- spike trains

/// Every spike of a record as an event, a row a token, padded to the same number.
struct Events {
  std::vector<int64_t> neuron;
  std::vector<double> time, value;
  uint64_t per_token = 0;
};

Events events_of(const SpikeRecord& record, SpikeCode code, int64_t steps) {
  const auto width = static_cast<size_t>(record.width), tokens = static_cast<size_t>(record.tokens);
  Events events;
  for (size_t t = 0; t < tokens; ++t) {
    uint64_t spikes = 0;
    for (size_t i = 0; i < width; ++i)
      spikes += static_cast<uint64_t>(spikes_of(code, record.counts[t * width + i], steps));
    events.per_token = std::max(events.per_token, spikes);
  }
  const uint64_t slots = checked_mul(events.per_token, tokens, "spikes");
  events.neuron.assign(slots, -1);
  events.time.assign(slots, std::numeric_limits<double>::infinity());
  events.value.assign(slots, 0.0);
  for (size_t t = 0; t < tokens; ++t) {
    const SpikeTrain train = encode_spikes(code, std::span(record.counts).subspan(t * width, width), steps);
    size_t at = t * events.per_token;
    for (int64_t step = 0; step < steps; ++step)
      for (size_t i = 0; i < width; ++i)
        if (const int8_t spike = train.step(step)[i]; spike != 0) {
          events.neuron[at] = static_cast<int64_t>(i);
          events.time[at] = static_cast<double>(step);
          events.value[at] = spike;
          ++at;
        }
  }
  return events;
}

int64_t steps_of(const SpikeRecord& record, SpikeCode code) {
  const auto [least, most] = std::minmax_element(record.counts.begin(), record.counts.end());
  return spike_steps(code, *least, *most);
}

// The sums W s of a token, in double.
void add_sums(std::span<const float> weights, std::span<const int32_t> counts, std::span<double> sums) {
  for (size_t r = 0; r < sums.size(); ++r)
    for (size_t i = 0; i < counts.size(); ++i)
      sums[r] += static_cast<double>(weights[r * counts.size() + i]) * counts[i];
}

class DataFile {
 public:
  DataFile() { file_.text_attribute("/", "__type__", "NIRGraphData"); }
  void spikes(const std::string& node, const Events& events, const SpikeRecord& record, int64_t steps) {
    const std::string at = observable(node, "spikes", "ValuedEventData");
    const std::vector<uint64_t> shape{static_cast<uint64_t>(record.tokens), events.per_token};
    file_.array(at + "/idx", events.neuron, shape);
    file_.array(at + "/time", events.time, shape);
    file_.array(at + "/value", events.value, shape);
    file_.attribute(at, "n_neurons", record.width);
    file_.attribute(at, "t_max", static_cast<double>(steps));
  }
  /// values: [tokens, neurons], once a token.
  void values(const std::string& node, const std::string& name, std::span<const double> values,
              int64_t tokens, int64_t steps) {
    const std::string at = observable(node, name, "TimeGriddedData");
    const auto samples = static_cast<uint64_t>(tokens);
    file_.array(at + "/data", values, {samples, 1, values.size() / samples});
    file_.attribute(at, "dt", static_cast<double>(steps));
  }
  std::string finish() { return file_.finish(); }

 private:
  std::string observable(const std::string& node, const std::string& name, std::string_view type) {
    const std::string parent = "/nodes/" + node, at = parent + "/observables/" + name;
    file_.group(at);
    if (typed_.insert(parent).second) file_.text_attribute(parent, "__type__", "NIRNodeData");
    file_.text_attribute(at, "__type__", type);
    return at;
  }
  Hdf5Writer file_;
  std::set<std::string> typed_;  // nodes that say what they are
};

std::string write_spikes(const ModelImpl& model, std::span<const SpikeRecord> records, SpikeCode code) {
  DataFile file;
  for (const SpikeRecord& record : records) {
    const int64_t steps = steps_of(record, code);
    file.spikes(input_node(record), events_of(record, code, steps), record, steps);
    const auto width = static_cast<size_t>(record.width);
    std::vector<double> thresholds;
    for (const float threshold : record.thresholds) thresholds.insert(thresholds.end(), width, threshold);
    file.values(input_node(record), "threshold", thresholds, record.tokens, steps);
    for (const std::string& name : record.names) {
      const Linear& linear = find_linear(model, record.layer, name);
      const std::vector<float> weights = weights_of(linear);
      const auto outputs = static_cast<size_t>(linear.w.rows);
      std::vector<double> sums(outputs * static_cast<size_t>(record.tokens));
      for (size_t t = 0; t < static_cast<size_t>(record.tokens); ++t)
        add_sums(weights, std::span(record.counts).subspan(t * width, width),
                 std::span(sums).subspan(t * outputs, outputs));
      file.values(name + ".sum", "v", sums, record.tokens, steps);
    }
  }
  return file.finish();
}

}  // namespace

NirExport nir_export(const Model& model, std::span<const SpikeRecord> records, SpikeCode code) {
  const ModelImpl& impl = model.impl();
  check_expressible(impl, records, code);
  for (const SpikeRecord& record : records)
    steps_of(record, code);  // throws for counts that the code cannot hold
  return {write_graph(impl, records, code), write_spikes(impl, records, code)};
}

}  // namespace mneme
