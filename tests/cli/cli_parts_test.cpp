// The parts of the command below its verbs: suggestions, arguments, texts, the store.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <optional>

#include "cli/help.h"
#include "cli/input.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/store.h"
#include "cli/suggest.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "core/file.h"
#include "core/paths.h"
#include "mneme/error.h"
#include "scratch.h"

namespace mneme::cli::cli_parts_test {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    value == nullptr ? ::unsetenv(name) : ::setenv(name, value, 1);
  }
  ~Environment() { old_ ? ::setenv(name_, old_->c_str(), 1) : ::unsetenv(name_); }

 private:
  const char* name_;
  std::optional<std::string> old_;
};

TEST(Suggest, CountsEdits) {
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("bnech", "bench"), 1u);  // a swap of neighbours is one slip
}

TEST(Suggest, OffersOnlyNearNames) {
  const std::vector<std::string> names{"generate", "tokenize", "detokenize", "bench"};
  EXPECT_EQ(nearest("genrate", names), "generate");
  EXPECT_EQ(nearest("tokenise", names), "tokenize");
  EXPECT_EQ(nearest("gen", names), "generate");
  EXPECT_EQ(nearest("serve", names), "");
  EXPECT_EQ(did_you_mean("bnech", names), "; did you mean bench?");
}

TEST(Input, ReadsIdsInEveryAcceptedForm) {
  const ScratchFolder folder;
  const auto file = folder.write("ids", "[1, 2,\n 3]\n");
  EXPECT_THAT(ids_argument("1,2,3"), ElementsAre(1, 2, 3));
  EXPECT_THAT(ids_argument("7"), ElementsAre(7));
  EXPECT_THAT(ids_argument(" 1 2 , 3 "), ElementsAre(1, 2, 3));
  EXPECT_THAT(ids_argument("@" + file.string()), ElementsAre(1, 2, 3));
  EXPECT_THAT(ids_argument("2147483647"), ElementsAre(2147483647));
}

TEST(Input, RefusesWhatIsNoId) {
  for (const char* bad : {"", " ", "a", "1,,2", "1,2,", ",1", "-1", "1.5", "2147483648",
                          "99999999999999999999", "0x10", "[1,2", "1;2"})
    EXPECT_THROW(ids_argument(bad), UsageError) << bad;
  try {
    ids_argument("10,20,x3");
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("item 3 is \"x3\""));
  }
}

TEST(Input, TextComesFromFilesAndCanBeginWithAt) {
  const ScratchFolder folder;
  const auto file = folder.write("prompt", "two\nlines\n");
  EXPECT_EQ(text_argument("plain"), "plain");
  EXPECT_EQ(text_argument("@" + file.string()), "two\nlines\n");
  EXPECT_EQ(text_argument("@@home"), "@home");
  EXPECT_THROW(text_argument("@/no/such/file"), Error);
}

TEST(Input, NumberListsAreBounded) {
  EXPECT_THAT(number_list("512,2048", "--prompt", 1, 4096), ElementsAre(512u, 2048u));
  for (const char* bad : {"", "0", "4097", "1,", "x", "-5"})
    EXPECT_THROW(number_list(bad, "--prompt", 1, 4096), UsageError) << bad;
}

TEST(Input, NamesTheFirstIdOutsideTheVocabulary) {
  EXPECT_NO_THROW(check_ids({0, 9}, 10));
  try {
    check_ids({1, 10, 11}, 10);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_THAT(error.what(), HasSubstr("token id 10 at position 1"));
  }
}

TEST(Terminal, SizesAndTimesAreShort) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(999), "999 B");
  EXPECT_EQ(human_bytes(1000), "1.00 kB");
  EXPECT_EQ(human_bytes(90.4e6), "90.4 MB");
  EXPECT_EQ(human_bytes(999.9e6), "1.00 GB");
  EXPECT_EQ(human_seconds(59.2), "1:00");
  EXPECT_EQ(human_seconds(3725), "1:02:05");
  EXPECT_EQ(human_seconds(1e300), "-:--");
}

TEST(Terminal, TablesAlignNumbersRight) {
  EXPECT_EQ(table({{"name", "size"}, {"a", "5"}, {"bcdef", "1234"}}),
            "name   size\n"
            "a         5\n"
            "bcdef  1234\n");
}

TEST(Progress, ShowsAmountRateAndTimeLeft) {
  EXPECT_EQ(progress_line("Loading", Progress::Unit::bytes, 50'000'000, 100'000'000, 25e6, 100),
            "Loading [############............]  50% 50.0 MB / 100 MB, 25.0 MB/s, 0:02 left");
  EXPECT_LE(progress_line("Loading", Progress::Unit::bytes, 1, 2, 1, 20).size(), 20u);
}

TEST(Store, FindsModelsByPathAndName) {
  const ScratchHome home;
  const auto gguf = home.write("models/small.Q4_1.gguf", "x");
  home.write("models/hf/user/model/config.json", "{}");
  home.write("models/.small.gguf.part", "x");
  const auto models = stored_models();
  ASSERT_EQ(models.size(), 2u);
  EXPECT_EQ(models[0].name, "hf/user/model");
  EXPECT_EQ(models[0].type, "huggingface");
  EXPECT_EQ(models[1].name, "small.Q4_1");
  EXPECT_EQ(resolve_model("small.Q4_1"), gguf);
  EXPECT_EQ(resolve_model("small.Q4_1.gguf"), gguf);
  EXPECT_EQ(resolve_model(gguf), gguf);
  EXPECT_EQ(resolve_model("hf/user/model"), home / "models/hf/user/model");
}

TEST(Store, MissingModelsAreExplained) {
  const ScratchHome home;
  home.write("models/small.Q4_1.gguf", "x");
  try {
    resolve_model("smal.Q4_1");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::not_found);
    EXPECT_THAT(error.what(), HasSubstr("did you mean small.Q4_1?"));
  }
  EXPECT_THROW(resolve_model(""), Error);
  EXPECT_THROW(resolve_model(home.path()), Error);  // a folder without config.json
}

TEST(Paths, FollowMnemeHomeThenXdgThenHome) {
  const Environment home("HOME", "/home/someone");
  {
    const Environment mneme("MNEME_HOME", "/srv/mneme");
    EXPECT_EQ(models_folder(), "/srv/mneme/models");
    EXPECT_EQ(cache_folder(), "/srv/mneme/cache");
  }
  const Environment mneme("MNEME_HOME", nullptr);
  const Environment data("XDG_DATA_HOME", "relative");  // to be ignored, says the specification
  const Environment cache("XDG_CACHE_HOME", "/var/cache/user");
  EXPECT_EQ(data_folder(), "/home/someone/.local/share/mneme");
  EXPECT_EQ(cache_folder(), "/var/cache/user/mneme");
}

TEST(Verbs, EveryOptionIsDescribedAndEveryVerbHasExamples) {
  ASSERT_NE(find_verb("completion"), nullptr);
  EXPECT_EQ(find_verb("nonsense"), nullptr);
  for (const Verb& verb : verbs()) {
    EXPECT_FALSE(verb.summary.empty()) << verb.name;
    EXPECT_FALSE(verb.examples.empty()) << verb.name;
    const Parser parser = make_parser(verb);
    std::vector<std::string> names;
    for (const CLI::Option* option : parser.app->get_options()) {
      names.push_back(option->get_name());
      if (option->get_group().empty()) continue;  // hidden
      EXPECT_FALSE(option->get_description().empty()) << verb.name << " " << option->get_name();
    }
    for (const char* common : {"--threads", "--json", "--quiet"})
      EXPECT_THAT(names, testing::Contains(common)) << verb.name;
    const std::string full = verb_help(verb, *parser.app, true);
    EXPECT_THAT(full, HasSubstr("MNEME_THREADS")) << verb.name;
    EXPECT_THAT(full, HasSubstr(verb.examples.front().command)) << verb.name;
    EXPECT_THAT(verb_help(verb, *parser.app, false), testing::Not(HasSubstr("MNEME_THREADS"))) << verb.name;
  }
}

TEST(Verbs, OptionsComeFromTheEnvironmentToo) {
  CLI::App app;
  int number = 0;
  std::string prompt;
  app.add_option("--some-number", number);
  app.add_option("--prompt", prompt);
  bind_environment(app);
  const Environment one("MNEME_SOME_NUMBER", "7");
  const Environment two("MNEME_PROMPT", "forgotten");
  app.parse(std::vector<std::string>{});
  EXPECT_EQ(number, 7);
  EXPECT_EQ(prompt, "");  // what is input is never taken from the environment
}

TEST(UnfinishedFiles, AreRemovedByTheHandlersFunction) {
  const ScratchFolder folder;
  AtomicFile file(folder / "out.bin");
  file.write("half");
  ASSERT_FALSE(fs::is_empty(folder.path()));
  remove_unfinished_files();
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

#ifndef MNEME_SANITIZED  // a sanitizer keeps SIGBUS to itself
TEST(BusErrorDeathTest, NamesTheFileThatBecameShorter) {
  const ScratchFolder folder;
  const fs::path whole = folder.write("model", std::string(65536, 'x'));
  const fs::path cut = folder.write("experts", std::string(65536, 'x'));
  const auto read_beyond_the_end = [&] {
    install_signal_handlers();
    const MappedFile model(whole, LoadMode::mmap), experts(cut, LoadMode::mmap);
    fs::resize_file(cut, 1);
    static_cast<void>(*static_cast<const volatile std::byte*>(model.bytes().data() + 40000));
    static_cast<void>(*static_cast<const volatile std::byte*>(experts.bytes().data() + 40000));
  };
  EXPECT_EXIT(read_beyond_the_end(), testing::ExitedWithCode(kFailed),
              "mneme: error: .*/experts became shorter");
}
#endif

}  // namespace
}  // namespace mneme::cli::cli_parts_test
