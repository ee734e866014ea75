// The words of the JSON schema for the enumerations of ModelConfig: one table each, used by the writer and
// the reader.
#pragma once
#include <array>
#include <string_view>
#include <utility>

#include "mneme/model_config.h"

namespace mneme::config_names {

template <class E, size_t N>
using Table = std::array<std::pair<E, std::string_view>, N>;

inline constexpr Table<Act, 3> kActs{
    {{Act::silu, "silu"}, {Act::gelu_tanh, "gelu_tanh"}, {Act::gelu, "gelu"}}};
inline constexpr Table<MixerType, 6> kMixers{{{MixerType::full, "full"},
                                              {MixerType::window, "window"},
                                              {MixerType::sparse, "sparse"},
                                              {MixerType::gla, "gla"},
                                              {MixerType::delta, "delta"},
                                              {MixerType::parallel, "parallel"}}};
inline constexpr Table<WindowEdge, 3> kEdges{{{WindowEdge::exact, "exact"},
                                              {WindowEdge::plus_one, "plus_one"},
                                              {WindowEdge::plus_one_prefill, "plus_one_prefill"}}};
inline constexpr Table<FeatureMap, 4> kFeatures{{{FeatureMap::relu, "relu"},
                                                 {FeatureMap::sigmoid, "sigmoid"},
                                                 {FeatureMap::silu, "silu"},
                                                 {FeatureMap::identity, "identity"}}};
inline constexpr Table<GateType, 3> kGates{
    {{GateType::low_rank, "low_rank"}, {GateType::matrix, "matrix"}, {GateType::tied, "tied"}}};
inline constexpr Table<QkNormOver, 2> kQkNorms{{{QkNormOver::head, "head"}, {QkNormOver::all, "all"}}};
inline constexpr Table<FfnType, 2> kFfns{{{FfnType::dense, "dense"}, {FfnType::moe, "moe"}}};
inline constexpr Table<RouterScore, 2> kRouters{
    {{RouterScore::softmax, "softmax"}, {RouterScore::sigmoid, "sigmoid"}}};
inline constexpr Table<GroupScore, 2> kGroupScores{
    {{GroupScore::max, "max"}, {GroupScore::top_two, "top_two"}}};
inline constexpr Table<Activation, 5> kActivations{{{Activation::automatic, "auto"},
                                                    {Activation::float_, "float"},
                                                    {Activation::int8, "int8"},
                                                    {Activation::spike, "spike"},
                                                    {Activation::int4, "int4"}}};
inline constexpr Table<Projection, kProjections> kProjectionNames{{{Projection::q, "q"},
                                                                   {Projection::k, "k"},
                                                                   {Projection::v, "v"},
                                                                   {Projection::o, "o"},
                                                                   {Projection::gate, "gate"},
                                                                   {Projection::up, "up"},
                                                                   {Projection::down, "down"},
                                                                   {Projection::recurrence, "recurrence"},
                                                                   {Projection::memory, "memory"}}};
inline constexpr Table<RopeConfig::Style, 2> kStyles{
    {{RopeConfig::Style::half, "half"}, {RopeConfig::Style::interleaved, "interleaved"}}};
inline constexpr Table<RopeScaling::Type, 5> kScalings{{{RopeScaling::Type::none, "none"},
                                                        {RopeScaling::Type::linear, "linear"},
                                                        {RopeScaling::Type::llama3, "llama3"},
                                                        {RopeScaling::Type::yarn, "yarn"},
                                                        {RopeScaling::Type::factors, "factors"}}};

/// The map of queries and keys that a recurrence has unless its config names one.
constexpr FeatureMap default_feature(MixerType type) {
  return type == MixerType::delta ? FeatureMap::silu : FeatureMap::relu;
}

/// A dense feed-forward with the fields that one has; those of a mixture have their defaults.
inline FfnConfig dense_fields(const FfnConfig& ffn) {
  FfnConfig out;
  out.hidden = ffn.hidden;
  out.act = ffn.act;
  out.bias = ffn.bias;
  return out;
}

template <class E, size_t N>
constexpr std::string_view word(const Table<E, N>& table, E value) {
  for (const auto& [candidate, name] : table)
    if (candidate == value) return name;
  return "?";
}

}  // namespace mneme::config_names
