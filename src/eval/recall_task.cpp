#include "eval/recall_task.h"

#include <algorithm>
#include <array>
#include <set>

#include "core/fail.h"
#include "core/random.h"

namespace mneme {
namespace {

constexpr std::array<std::string_view, 5> kNames = {"needle", "multikey", "multivalue", "multiquery",
                                                    "variables"};
constexpr uint32_t kMostItems = 1000;

constexpr std::array<std::string_view, 48> kFirst = {
    "amber",  "brisk",  "calm",   "deep",   "early", "frosty", "gentle", "hollow",  "ivory",  "jolly",
    "keen",   "light",  "mellow", "noble",  "open",  "proud",  "quick",  "rapid",   "silver", "tidy",
    "urban",  "vivid",  "wild",   "young",  "azure", "bold",   "clever", "distant", "eager",  "faint",
    "golden", "honest", "idle",   "jagged", "kind",  "loud",   "modest", "neat",    "orange", "polite",
    "royal",  "sharp",  "tender", "upper",  "vast",  "windy",  "yellow", "zesty"};
constexpr std::array<std::string_view, 48> kSecond = {
    "anchor", "badger", "cactus", "dolphin", "engine",  "falcon", "glacier", "hammock",
    "insect", "jacket", "kernel", "lemon",   "magnet",  "needle", "otter",   "pepper",
    "quartz", "rocket", "saddle", "tunnel",  "unicorn", "velvet", "walnut",  "xylophone",
    "yogurt", "zebra",  "acorn",  "bamboo",  "copper",  "dragon", "ember",   "feather",
    "garlic", "helmet", "igloo",  "jungle",  "kitten",  "lagoon", "marble",  "nutmeg",
    "oyster", "parrot", "rabbit", "spider",  "thistle", "violet", "willow",  "zipper"};

// Everything that must not come twice in a document.
class Names {
 public:
  explicit Names(uint64_t seed) : random_(seed) {}
  std::string key() {
    return fresh([&] {
      return fmt::format("{}-{}", kFirst[random_.below(kFirst.size())],
                         kSecond[random_.below(kSecond.size())]);
    });
  }
  std::string number(uint64_t digits) {
    uint64_t least = 1;
    for (uint64_t i = 1; i < digits; ++i) least *= 10;
    return fresh([&] { return std::to_string(least + random_.below(9 * least)); });
  }
  std::string variable() {
    return fresh([&] {
      std::string name;
      for (int i = 0; i < 5; ++i) name += static_cast<char>('A' + random_.below(26));
      return name;
    });
  }

 private:
  template <class Make>
  std::string fresh(const Make& make) {
    for (;;) {
      std::string name = make();
      if (used_.insert(name).second) return name;
    }
  }
  Pcg64 random_;
  std::set<std::string> used_;
};

std::string list(const std::vector<std::string>& words) {
  std::string out;
  for (size_t i = 0; i < words.size(); ++i)
    out += (i == 0 ? "" : i + 1 < words.size() ? ", " : words.size() > 2 ? ", and " : " and ") + words[i];
  return out;
}

RecallItem secret(const std::string& key, const std::string& number) {
  return {fmt::format("The secret number of {} is {}.", key, number), number};
}

RecallDocument numbers(RecallTask task, uint32_t items, uint32_t distractors, Names& names) {
  RecallDocument document;
  document.intro =
      "Read the following text with care. Secret numbers are hidden in it, and questions about them follow "
      "after its end.\n\n";
  std::vector<std::string> keys{names.key()};
  for (uint32_t i = 0; i < items; ++i) {
    if (i > 0 && task != RecallTask::multivalue) keys.push_back(names.key());
    document.items.push_back(secret(keys.back(), names.number(7)));
  }
  for (uint32_t i = 0; i < distractors; ++i) {
    document.distractors.push_back(secret(names.key(), names.number(7)));
    document.distractors.back().expected.clear();
  }
  const auto ask = [&](const std::string& whom, bool several, std::vector<size_t> which) {
    const char* noun = several ? "secret numbers" : "secret number";
    const char* verb = several ? "are" : "is";
    document.questions.push_back(
        {fmt::format("What {} {}the {} of {} in the text above? Answer with the {} alone.", verb,
                     task == RecallTask::multivalue && several ? "all " : "", noun, whom,
                     several ? "numbers" : "number"),
         fmt::format("The {} of {} {}", noun, whom, verb), std::move(which)});
  };
  std::vector<size_t> all;
  for (size_t i = 0; i < document.items.size(); ++i) all.push_back(i);
  if (task == RecallTask::needle || task == RecallTask::multikey) {
    for (const size_t i : all) ask(keys[i], false, {i});
  } else {
    ask(list(keys), items > 1, all);
  }
  return document;
}

// A chain of assignments that ends at `value`: its lines and its variables.
std::vector<RecallItem> chain(uint32_t length, const std::string& value, Names& names) {
  std::vector<RecallItem> items;
  for (uint32_t i = 0; i < length; ++i) {
    std::string name = names.variable();
    const std::string from = i == 0 ? value : items.back().expected;
    items.push_back({fmt::format("Assignment: {} = {}.", name, from), name});
  }
  return items;
}

RecallDocument variables(uint32_t items, uint32_t distractors, Names& names) {
  RecallDocument document;
  document.intro =
      "Assignments to variables are hidden in the following text. Keep track of them; a question about them "
      "follows after its end. For example, after \"Assignment: QQ = 11.\" and \"Assignment: RR = QQ.\" the "
      "variables that hold the value 11 are QQ and RR.\n\n";
  const std::string value = names.number(5);
  document.items = chain(items, value, names);
  for (uint32_t i = 0; i < distractors; ++i)
    for (RecallItem& item : chain(items, names.number(5), names)) {
      item.expected.clear();
      document.distractors.push_back(std::move(item));
    }
  RecallQuestion question{
      fmt::format(
          "Which variables hold the value {}, directly or through other variables, in the text above? "
          "There are {}; answer with their names alone.",
          value, items),
      fmt::format("The variables that hold the value {} are", value),
      {}};
  for (size_t i = 0; i < items; ++i) question.items.push_back(i);
  document.questions.push_back(std::move(question));
  return document;
}

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

}  // namespace

std::string_view to_string(RecallTask task) noexcept {
  return kNames[static_cast<size_t>(task)];
}

std::optional<RecallTask> recall_task_from(std::string_view name) noexcept {
  const auto* found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end()) return std::nullopt;
  return static_cast<RecallTask>(found - kNames.begin());
}

RecallDocument make_recall_document(RecallTask task, uint32_t items, uint32_t distractors, uint64_t seed) {
  require(items >= 1 && items <= kMostItems && distractors <= kMostItems, ErrorCode::invalid_argument,
          "a document can hide 1 to {0} items and 0 to {0} distractors, not {1} and {2}", kMostItems, items,
          distractors);
  require(task != RecallTask::variables || uint64_t{items} * (1 + distractors) <= 100 * kMostItems,
          ErrorCode::invalid_argument, "{} chains of {} variables are too many", distractors + 1, items);
  Names names(seed);
  if (task == RecallTask::variables) return variables(items, distractors, names);
  return numbers(task, task == RecallTask::needle ? 1 : items, distractors, names);
}

bool answer_holds(std::string_view answer, std::string_view expected) {
  return std::search(answer.begin(), answer.end(), expected.begin(), expected.end(),
                     [](char a, char b) { return lower(a) == lower(b); }) != answer.end();
}

}  // namespace mneme
