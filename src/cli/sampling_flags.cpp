#include "cli/sampling_flags.h"

#include <charconv>

#include "cli/verb.h"
#include "mneme/error.h"

namespace mneme::cli {
namespace {

std::pair<TokenId, float> parse_bias(const std::string& text) {
  const size_t colon = text.find(':');
  TokenId id = -1;
  float value = 0;
  if (colon != std::string::npos) {
    const char* end = text.data() + text.size();
    const auto first = std::from_chars(text.data(), text.data() + colon, id);
    const char* number = text.data() + colon + 1;
    if (number < end && *number == '+') ++number;
    const auto second = std::from_chars(number, end, value);
    if (first.ec == std::errc() && first.ptr == text.data() + colon && id >= 0 && second.ec == std::errc() &&
        second.ptr == end)
      return {id, value};
  }
  throw UsageError("--logit-bias: \"" + text + "\" is not ID:VALUE, for example 15:-2.5 or 15:-inf");
}

}  // namespace

void add_sampling_options(CLI::App& app, SamplingFlags& flags) {
  SamplingOptions& o = flags.options;
  const auto add = [&app](const char* name, auto& value, const char* text, const char* type) {
    app.add_option(name, value, text)->type_name(type)->group("Sampling");
  };
  add("--temp", o.temperature, "Temperature; 0: always the likeliest token", "X");
  add("--top-k", o.top_k, "Only the K likeliest tokens; 0: all", "K");
  add("--top-p", o.top_p, "Only the likeliest tokens that together have this probability; 1: all", "P");
  add("--min-p", o.min_p, "Only tokens with at least this share of the best one's probability; 0: all", "P");
  add("--typical", o.typical_p, "Locally typical sampling: keep this probability mass; 1: off", "P");
  add("--repeat-penalty", o.repetition_penalty, "Divide the logits of tokens seen before; 1: off", "X");
  add("--frequency-penalty", o.frequency_penalty, "Subtract this for each time a token was seen", "X");
  add("--presence-penalty", o.presence_penalty, "Subtract this if a token was seen at all", "X");
  add("--penalty-window", o.penalty_window, "How many last tokens the penalties look at; -1: all", "N");
  add("--seed", o.seed, "Same seed, same text, with any number of threads", "N");
  app.add_option("--logit-bias", flags.logit_bias, "Add VALUE to the logit of a token; repeatable")
      ->type_name("ID:VALUE")
      ->allow_extra_args(false)
      ->group("Sampling");
}

SamplingOptions sampling_options(const SamplingFlags& flags) {
  SamplingOptions options = flags.options;
  for (const std::string& bias : flags.logit_bias) options.logit_bias.push_back(parse_bias(bias));
  try {
    options.validate();
  } catch (const Error& error) {
    throw UsageError(error.what());
  }
  return options;
}

}  // namespace mneme::cli
