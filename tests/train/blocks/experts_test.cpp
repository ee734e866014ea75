// Mixtures of experts in the trainer: routing that is held in balance, and routers that meet what they must
// not. That the block computes what the engine does and has the right gradients: parity_test.cpp and
// gradient_test.cpp, whose cases have experts.
#include "train/blocks/experts.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/fail.h"
#include "model/tensor_names.h"
#include "train/blocks/block_cases.h"
#include "train/blocks/decoder.h"

namespace mneme::train::experts_test {
namespace {

ModelConfig mixture(const std::string& fields, const std::string& more = "") {
  return ModelConfig::from_json(R"({"mneme": 1, "d_model": 24, "vocab": 48, "context": 512,
      "defaults": {"mixer": {"type": "full", "heads": 4, "kv_heads": 2, "head_dim": 8}},
      "layers": [{"ffn": {"type": "moe", "hidden": 16, )" +
                                fields + "}}]" + more + "}");
}

const char* const kPlain = R"("experts": 6, "top_k": 2)";

/// One pass over random tokens with its gradients.
struct Pass {
  explicit Pass(const ModelConfig& config, ExpertOptions experts = {}, bool again = false)
      : parameters(random_parameters(config, 21)), tally(config) {
    const Tensor ids = random_tokens(config, 3, 41, 22);
    PassOptions options;
    options.record = &choices;
    options.checkpoint_layers = again;
    options.experts = experts;
    options.experts.tally = &tally;
    loss = Decoder(config, parameters)
               .loss(ids.narrow(1, 0, 40).contiguous(), ids.narrow(1, 1, 40).contiguous(), {}, options);
    loss.backward();
  }
  Tensor router_gradient() const { return parameters.at("blk.0.ffn_gate_inp.weight").grad(); }
  Parameters parameters;
  ExpertTally tally;
  Choices choices;
  Tensor loss;
};

TEST(ExpertTally, CountsWhatWasRecorded) {
  const ModelConfig config =
      mixture(R"("experts": 4, "null_experts": 2, "top_k": 3)", R"(, "sink_tokens": 2)");
  for (const bool again : {false, true}) {
    const Pass pass(config, {}, again);
    const Tensor chosen = pass.choices.experts.at(0).narrow(1, 2, 40).flatten();
    ASSERT_EQ(pass.tally.layers().size(), 1u);
    const LayerRouting layer = pass.tally.layers()[0];
    EXPECT_EQ(layer.tokens, 120u);
    for (int64_t c = 0; c < 6; ++c)
      EXPECT_EQ(static_cast<int64_t>(layer.chosen[static_cast<size_t>(c)]),
                chosen.eq(c).sum().item<int64_t>());
    EXPECT_NEAR(layer.mean_active(), chosen.lt(4).sum().item<double>() / 120, 1e-12);
    EXPECT_GT(layer.score_entropy, 0.1);
    EXPECT_LT(layer.score_entropy, 1.0);
    ExpertTally twice = pass.tally;
    twice.add(pass.tally);
    EXPECT_EQ(twice.layers()[0].tokens, 240u);
    EXPECT_EQ(twice.layers()[0].load(), layer.load());
    EXPECT_THROW(twice.restore(at::zeros({3}, at::kDouble)), Error);
    const OrderedJson report = pass.tally.report();
    EXPECT_EQ(report[0]["load"].size(), 4u);
    EXPECT_EQ(report[0]["active"].size(), 4u);
  }
}

// The price in its own words, and its gradient by differences in double precision.
TEST(RoutingPrice, IsWhatItSaysAndItsGradientToo) {
  FfnConfig ffn = mixture(R"("experts": 4, "null_experts": 2, "top_k": 2)").layers[0].ffn;
  at::Generator generator = at::detail::createCPUGenerator(1);
  const Tensor chosen = at::tensor({0, 1, 0, 4, 0, 5, 2, -1, 1, 4}, at::kLong).view({5, 2});
  for (const RouterScore kind : {RouterScore::softmax, RouterScore::sigmoid}) {
    ffn.router = kind;
    const Tensor start = at::normal(0.0, 1.0, {5, 6}, generator).to(at::kDouble);
    const auto scores_of = [&](const Tensor& logits) {
      return kind == RouterScore::softmax ? at::softmax(logits, 1) : at::sigmoid(logits);
    };
    const ExpertOptions options{0.3, 0.2, 0.4, nullptr};
    const Tensor p = scores_of(start) / scores_of(start).sum(1, true);
    // 9 places: experts got 3, 2, 1, 0 of them and are to get 0.15 each, null experts 3 together and 0.2
    // each.
    const double got[6] = {3, 2, 1, 0, 1.5, 1.5}, wanted[6] = {0.15, 0.15, 0.15, 0.15, 0.2, 0.2};
    double price = 0;
    for (int64_t c = 0; c < 6; ++c)
      price += 0.3 * got[c] / 9 / wanted[c] * p.select(1, c).mean().item<double>();
    price -= 0.2 * (p * p.log()).sum(1).mean().item<double>();
    const Tensor leaf = start.clone().requires_grad_(true);
    const Tensor value = routing_price(ffn, scores_of(leaf), chosen, options);
    EXPECT_NEAR(value.item<double>(), price, 1e-12);
    value.backward();
    const Tensor direction = at::normal(0.0, 1.0, {5, 6}, generator).to(at::kDouble);
    const auto at_step = [&](double step) {
      return routing_price(ffn, scores_of(start + step * direction), chosen, options).item<double>();
    };
    const double numeric = (at_step(1e-6) - at_step(-1e-6)) / 2e-6;
    EXPECT_NEAR((leaf.grad() * direction).sum().item<double>(), numeric, 1e-7 * std::abs(numeric) + 1e-9);
  }
}

TEST(RoutingPrice, IsOneWhereAllIsEven) {
  const FfnConfig ffn = mixture(kPlain).layers[0].ffn;
  const Tensor chosen = at::arange(12, at::kLong).remainder(6).view({6, 2});
  const Tensor even = at::full({6, 6}, 1.0 / 6, at::kDouble);
  EXPECT_NEAR(routing_price(ffn, even, chosen, {1.0, 0, {}, nullptr}).item<double>(), 1.0, 1e-12);
  EXPECT_NEAR(routing_price(ffn, even, chosen, {0, 1.0, {}, nullptr}).item<double>(), std::log(6.0), 1e-12);
}

TEST(RoutingPrice, ChangesGradientsAndNotTheLoss) {
  const ModelConfig config = mixture(kPlain);
  const Pass none(config), half(config, {0.5, 0, {}, nullptr}), whole(config, {1.0, 0, {}, nullptr}),
      again(config, {1.0, 0, {}, nullptr}, true);
  EXPECT_EQ(none.loss.item<double>(), whole.loss.item<double>());
  const Tensor a = half.router_gradient() - none.router_gradient(),
               b = whole.router_gradient() - none.router_gradient();
  EXPECT_GT(a.norm().item<double>(), 1e-4);
  EXPECT_LT((b - 2 * a).norm().item<double>(), 1e-3 * b.norm().item<double>());
  EXPECT_TRUE(at::equal(whole.router_gradient(), again.router_gradient()));  // recomputed layers pay once
}

/// Plain descent of a router alone that begins by sending most tokens to few; the coefficient of variation of
/// its load before and after. With a rate, all values that it reads have a part in common, by which two
/// experts begin ahead of the others.
std::pair<double, double> balanced_by(const std::string& fields, const BalanceConfig& balance, double rate,
                                      double* nulls = nullptr) {
  const ModelConfig config = mixture(fields);
  const Parameters parameters = random_parameters(config, 31);
  {
    const at::NoGradGuard no_grad;
    Tensor router = parameters.at("blk.0.ffn_gate_inp.weight").detach();
    router.mul_(0.3);
    if (rate > 0) {
      parameters.at("token_embd.weight").detach().add_(0.8);
      router.narrow(0, 0, 2).add_(0.05);
    } else {
      router.narrow(0, 0, 2).mul_(4);
    }
  }
  std::pair<double, double> out;
  for (uint64_t step = 0; step < 150; ++step) {
    const Tensor ids = random_tokens(config, 4, 65, 100 + step);
    ExpertTally tally(config);
    PassOptions options;
    options.experts = {balance.balance, balance.entropy, balance.null_share, &tally};
    Decoder(config, parameters)
        .loss(ids.narrow(1, 0, 64).contiguous(), ids.narrow(1, 1, 64).contiguous(), {}, options)
        .backward();
    const Tensor& router = parameters.at("blk.0.ffn_gate_inp.weight");
    if (rate > 0) router.detach().sub_(router.grad() * rate);
    for (const std::string& name : parameters.names()) parameters.at(name).mutable_grad() = Tensor();
    balance_biases(config, parameters, tally, balance);
    if (step == 0) out.first = tally.variation();
    out.second = tally.variation();
    if (nulls) *nulls = tally.layers()[0].null_share();
  }
  return out;
}

TEST(Balance, APriceEvensTheLoad) {
  const auto [before, after] = balanced_by(kPlain, {1.0, 0, 0, {}}, 0.02);
  EXPECT_GT(before, 0.5);
  EXPECT_LT(after, 0.5 * before);
}

TEST(Balance, ABiasEvensTheLoadWithoutAnyGradient) {
  const auto [before, after] =
      balanced_by(R"("experts": 6, "top_k": 2, "selection_bias": true)", {0, 0, 0.01, {}}, 0);
  EXPECT_GT(before, 0.4);
  EXPECT_LT(after, 0.4 * before);
  const auto [same, still] =
      balanced_by(R"("experts": 6, "top_k": 2, "selection_bias": true)", {0, 0, 0, {}}, 0);
  EXPECT_EQ(same, before);
  EXPECT_GT(still, 0.8 * before);
}

TEST(Balance, TheShareOfNullExpertsIsWhatIsAskedFor) {
  for (const double share : {0.2, 0.6}) {
    double nulls = 0;
    balanced_by(R"("experts": 4, "null_experts": 4, "top_k": 4, "selection_bias": true)", {0, 0, 0.01, share},
                0, &nulls);
    EXPECT_NEAR(nulls, share, 0.06);
  }
}

TEST(BalanceConfigs, ReadWhatTheyWrite) {
  const BalanceConfig config{0.5, 0.25, 0.125, 0.75};
  const Json json = config.to_json();
  EXPECT_EQ(BalanceConfig::from_json(JsonFields(json, "experts", ErrorCode::invalid_argument)), config);
  for (const char* bad : {R"({"balnce": 1})", R"({"bias_rate": 2})", R"({"null_share": -0.1})"}) {
    const Json wrong = Json::parse(bad);
    EXPECT_THROW(BalanceConfig::from_json(JsonFields(wrong, "experts", ErrorCode::invalid_argument)), Error);
  }
}

TEST(Routers, ThatMeetNanSayWhere) {
  const ModelConfig config = mixture(kPlain);
  for (const double value : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    const Parameters parameters = random_parameters(config, 41);
    parameters.at("blk.0.ffn_gate_inp.weight").detach()[4][3].fill_(value);
    try {
      Decoder(config, parameters).hidden(random_tokens(config, 2, 7, 42));
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::corrupt);
      const std::string text = error.what();
      EXPECT_NE(text.find("layer 0"), std::string::npos) << text;
      EXPECT_NE(text.find("expert 4"), std::string::npos) << text;
      EXPECT_NE(text.find("position 0"), std::string::npos) << text;
    }
  }
}

TEST(Routers, ThatCannotChooseSoManyAreRefused) {
  ModelConfig config = mixture(kPlain);
  const Parameters parameters = random_parameters(config, 41);
  config.layers[0].ffn.top_k = 7;
  EXPECT_THROW(Decoder(config, parameters), Error);
  EXPECT_THROW(mixture(R"("experts": 6, "top_k": 7)"), Error);
}

// Everything to one expert: that expert's output for all, and no gradient for the others.
TEST(Routers, ThatSendAllTokensToOneExpertAreDefined) {
  const ModelConfig config = mixture(R"("experts": 6, "top_k": 1, "selection_bias": true)");
  const Parameters parameters = random_parameters(config, 51);
  parameters.at("blk.0.exp_probs_b.bias").detach()[3].fill_(100);
  const Tensor tokens = random_tokens(config, 2, 30, 52);
  ExpertTally tally(config);
  PassOptions options;
  options.experts = {1.0, 0, {}, &tally};
  const Tensor hidden = Decoder(config, parameters).hidden(tokens, {}, options);
  hidden.square().sum().backward();
  EXPECT_EQ(tally.layers()[0].chosen[3], 60u);
  EXPECT_NEAR(tally.variation(), std::sqrt(5.0), 1e-9);
  EXPECT_EQ(tally.starved(), 5u);
  EXPECT_FALSE(parameters.at("blk.0.ffn_up.2.weight").grad().defined());
  EXPECT_GT(parameters.at("blk.0.ffn_up.3.weight").grad().norm().item<double>(), 0);
  EXPECT_TRUE(at::isfinite(parameters.at("blk.0.ffn_gate_inp.weight").grad()).all().item<bool>());

  // A dense model with that expert's matrices (top-1 weights that are renormalised are 1).
  ModelConfig dense = config;
  dense.layers[0].ffn = {};
  dense.layers[0].ffn.hidden = 16;
  Parameters one;
  for (const std::string& name : parameters.names())
    if (!expert_tensor_name_of(name) && name.find("gate_inp") == std::string::npos &&
        name.find("exp_probs") == std::string::npos)
      one.add(name, parameters.at(name));
  for (const char* part : {"gate", "up", "down"})
    one.add(fmt::format("blk.0.ffn_{}.weight", part),
            parameters.at(fmt::format("blk.0.ffn_{}.3.weight", part)));
  EXPECT_LT((Decoder(dense, one).hidden(tokens) - hidden).abs().max().item<double>(), 1e-5);
}

TEST(Routers, ThatWakeNullExpertsAloneAddNothing) {
  const ModelConfig config =
      mixture(R"("experts": 3, "null_experts": 2, "top_k": 2, "selection_bias": true)");
  const Parameters parameters = random_parameters(config, 61);
  parameters.at("blk.0.exp_probs_b.bias").detach().narrow(0, 3, 2).fill_(100);
  ExpertTally tally(config);
  PassOptions options;
  options.experts.tally = &tally;
  const Tensor tokens = random_tokens(config, 1, 20, 62);
  const Tensor hidden = Decoder(config, parameters).hidden(tokens, {}, options);
  hidden.square().sum().backward();
  EXPECT_EQ(tally.mean_active(), 0);
  EXPECT_EQ(tally.layers()[0].null_share(), 1);
  EXPECT_EQ(tally.variation(), 1);  // of loads that are all 0
  EXPECT_TRUE(at::isfinite(hidden).all().item<bool>());
  EXPECT_TRUE(at::isfinite(parameters.at("blk.0.ffn_gate_inp.weight").grad()).all().item<bool>());
  EXPECT_EQ(parameters.at("blk.0.ffn_gate_inp.weight").grad().abs().max().item<double>(), 0);
}

TEST(FirstValues, OfExpertsAreThoseOfADenseLayer) {
  const ModelConfig config =
      mixture(R"("experts": 6, "top_k": 2, "shared": 1, "shared_gate": true, "selection_bias": true)");
  const Parameters parameters = Parameters::create(config, 71);
  const double written = 0.02 / std::sqrt(2.0);
  EXPECT_NEAR(parameters.at("blk.0.ffn_down.4.weight").std().item<double>(), written, 0.2 * written);
  EXPECT_NEAR(parameters.at("blk.0.ffn_down_shexp.weight").std().item<double>(), written, 0.2 * written);
  EXPECT_NEAR(parameters.at("blk.0.ffn_up.4.weight").std().item<double>(), 0.02, 0.004);
  EXPECT_NEAR(parameters.at("blk.0.ffn_gate_inp.weight").std().item<double>(), 0.02, 0.005);
  EXPECT_LT(parameters.at("blk.0.ffn_gate_inp_shexp.weight").abs().max().item<double>(), 0.1);
  EXPECT_EQ(parameters.at("blk.0.exp_probs_b.bias").abs().max().item<double>(), 0);
}

TEST(SpikingExperts, CountAsManyAsATokenPasses) {
  ModelConfig config = ModelConfig::from_json(R"({"mneme": 1, "d_model": 32, "vocab": 48, "context": 64,
      "defaults": {"mixer": {"type": "full", "heads": 4, "kv_heads": 2, "head_dim": 8},
                   "activation": {"default": "float", "gate": "spike", "up": "spike", "down": "spike"}},
      "layers": [{"ffn": {"type": "moe", "hidden": 64, "experts": 5, "top_k": 2, "shared": 1, "shared_hidden": 32}}]})");
  EXPECT_EQ(spiking_weights(config), 2u * 3 * 32 * 64 + 3u * 32 * 32);
  EXPECT_EQ(projection_of("ffn_down.12"), Projection::down);
  EXPECT_EQ(projection_of("ffn_gate_shexp"), Projection::gate);
  EXPECT_FALSE(projection_of("ffn_gate_inp"));
}

}  // namespace
}  // namespace mneme::train::experts_test
