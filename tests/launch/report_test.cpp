// SPDX-License-Identifier: Apache-2.0
// `lockstep report`: what is read of run folders, what the page shows of them, and what is wrong with damaged ones.
#include <gtest/gtest.h>

#include <regex>

#include "launch/report/page.h"
#include "launch/report/run_record.h"
#include "runtime/data/dataset.h"
#include "runtime/files/path.h"
#include "tests/launch/small_run.h"

namespace lockstep::testing {
namespace {

using report::RunRecord;

size_t occurrences(const std::string& text, const std::string& what) {
  size_t n = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

MetricsLine metrics_at(int64_t step, const std::string& split, double loss) {
  MetricsLine line;
  line.step = step, line.split = split, line.loss = loss, line.seconds = 1;
  return line;
}

// Elements are closed in the order in which they were opened.
void expect_well_formed(const std::string& html) {
  static const std::regex tag("<(/?)([a-z0-9]+)((?:[^>\"]|\"[^\"]*\")*)>");
  std::vector<std::string> open;
  for (auto it = std::sregex_iterator(html.begin(), html.end(), tag); it != std::sregex_iterator(); ++it) {
    const std::string name = (*it)[2];
    if (name == "meta" || name == "img" || name == "wbr" || (*it)[3].str().ends_with("/")) continue;
    if ((*it)[1].length() == 0) {
      open.push_back(name);
    } else {
      ASSERT_FALSE(open.empty()) << it->str();
      ASSERT_EQ(open.back(), name) << html.substr(
          static_cast<size_t>(std::max<std::ptrdiff_t>(0, it->position() - 200)), 300);
      open.pop_back();
    }
  }
  EXPECT_TRUE(open.empty());
}

TEST(ReportRecord, JobsBecomeKeysAndValues) {
  EXPECT_EQ(
      report::flat_job("a: 1\nb: {c: [2, 3], d: x}\nlayers: [flatten, {linear: {out: 4, bias: true}}]\n",
                       "job.yaml"),
      (report::KeyValues{{"a", "1"},
                         {"b.c", "[2, 3]"},
                         {"b.d", "x"},
                         {"layers[0]", "flatten"},
                         {"layers[1]", "{linear: {out: 4, bias: true}}"}}));
}

TEST(ReportRecord, MetricsAreReadAsTheyAreWritten) {
  TestFolder folder;
  MetricsLine line = metrics_at(7, "training", std::numeric_limits<double>::quiet_NaN());
  line.epoch = 0.5, line.accuracy = 0.25, line.lr = 0.1, line.samples_per_second = 5;
  MetricsLine test = metrics_at(8, "test", 0.5);
  test.confusion = {{3, 1}, {0, 4}};
  {
    MetricsWriter writer(folder.file("m"), {});
    writer.write(line);
    writer.write(test);
  }
  const auto read = report::read_metrics(read_file(folder.file("m")) + "{\"step\": 9", "m");
  ASSERT_EQ(read.size(), 2u) << "a last line that is not whole is passed over";
  EXPECT_EQ(read[0].step, 7);
  EXPECT_EQ(read[0].epoch, 0.5);
  EXPECT_TRUE(std::isnan(read[0].loss));
  EXPECT_EQ(read[0].accuracy, 0.25);
  EXPECT_EQ(read[0].lr, 0.1);
  EXPECT_EQ(read[0].samples_per_second, 5);
  EXPECT_FALSE(read[0].data_wait_percent);
  EXPECT_EQ(read[1].split, "test");
  EXPECT_EQ(read[1].confusion, test.confusion);
}

TEST(ReportRecord, DamagedLinesAreNamedByTheirNumber) {
  const std::string good = R"({"step":1,"epoch":1,"split":"test","loss":1,"seconds":1})"
                           "\n";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"nonsense\n", "expected a JSON object"},
      {"[1]\n", "expected a JSON object"},
      {"\n", "expected a JSON object"},
      {R"({"step":1.5,"epoch":1,"split":"test","loss":1,"seconds":1})"
       "\n",
       "key=step"},
      {R"({"step":1,"epoch":1,"split":3,"loss":1,"seconds":1})"
       "\n",
       "key=split"},
      {R"({"step":1,"epoch":1,"split":"test","seconds":1})"
       "\n",
       "key=loss"},
      {R"({"step":1,"epoch":1,"split":"test","loss":"x","seconds":1})"
       "\n",
       "key=loss"},
      {R"({"step":1,"epoch":1,"split":"test","loss":1,"seconds":1,"accuracy":"x"})"
       "\n",
       "key=accuracy"},
      {R"({"step":1,"epoch":1,"split":"test","loss":1,"seconds":1,"confusion":[[1,2]]})"
       "\n",
       "key=confusion"},
      {R"({"step":1,"epoch":1,"split":"test","loss":1,"seconds":1,"confusion":[[1,"x"],[1,2]]})"
       "\n",
       "key=confusion"},
  };
  for (const auto& [bad, expected] : cases) {
    const auto error =
        error_of([&, &text = bad] { report::read_metrics(good + text + good, "metrics.jsonl"); });
    ASSERT_TRUE(error) << bad;
    EXPECT_EQ(error->exit(), Exit::data);
    EXPECT_NE(std::string(error->what()).find("file=metrics.jsonl:2"), std::string::npos) << error->what();
    EXPECT_NE(std::string(error->what()).find(expected), std::string::npos) << error->what();
  }
}

TEST(ReportPage, EverythingFromFilesIsEscaped) {
  const std::string evil = "<script>alert(\"evil\")</script>'&";
  RunRecord run;
  run.folder = run.name = evil;
  run.job = {{evil, evil}};
  run.lines = {metrics_at(1, "training", 1), metrics_at(1, evil, 1), metrics_at(2, "test", 1)};
  run.lines[2].confusion = {{1, 2}, {3, 4}};
  run.status = Status{"failed", 65, 1, 2, 3, 0, evil, evil, evil, evil, evil};
  run.plan = report::PlanSummary{2, 3, 4, 5, 6, {{evil, evil, 1, 2}}};
  run.model = ModelDescription{};
  run.model->class_names = {evil, evil};
  run.model->program = evil, run.model->data = {{evil, evil}};
  run.samples = {{evil, "png", 1, 1}}, run.samples_there = 1;
  const std::string page = report::page(std::array{run});
  EXPECT_EQ(page.find("<script"), std::string::npos);
  EXPECT_EQ(page.find("\"evil\""), std::string::npos);
  EXPECT_GE(occurrences(page, "&lt;script&gt;alert(&quot;evil&quot;)&lt;/script&gt;&#39;&amp;"), 14u);
  expect_well_formed(page);
}

TEST(ReportPage, ShowsWhatDiffersAndLeavesOutWhatNoRunHas) {
  RunRecord a, b;
  a.folder = "x/run", b.folder = "y/run", a.name = b.name = "run";
  a.job = {{"lr", "0.1"}, {"seed", "1"}, {"only_a", "yes"}};
  b.job = {{"lr", "0.2"}, {"seed", "1"}};
  a.lines = {metrics_at(1, "training", 2), metrics_at(2, "training", 1)};
  const std::string page = report::page(std::array{a, b});
  expect_well_formed(page);
  EXPECT_NE(page.find("<title>Lockstep: x/run, y/run</title>"), std::string::npos)
      << "names alone are the same";
  const std::string differ =
      page.substr(page.find("What differs"), page.find("<details>") - page.find("What differs"));
  EXPECT_NE(differ.find("lr</th><td class=\"long\">0.1</td><td class=\"long\">0.2</td>"), std::string::npos)
      << differ;
  EXPECT_NE(differ.find("only_<wbr>a</th><td class=\"long\">yes</td><td class=\"long\"></td>"),
            std::string::npos)
      << differ;
  EXPECT_EQ(differ.find("seed"), std::string::npos);
  for (const char* absent : {"Accuracy", "Samples", "Confusion", "<h2>Plan", "Rate", "test loss", "http:"})
    EXPECT_EQ(page.find(absent), std::string::npos) << absent;
  EXPECT_EQ(occurrences(page, "<figure"), 1u);
  EXPECT_NE(report::page(std::array{b, b}).find("The runs have the same job"), std::string::npos);
  EXPECT_NE(report::page(std::array{b}).find("No metrics"), std::string::npos);
}

TEST(ReportPage, ConfusionHasSharesOfItsRows) {
  RunRecord run;
  run.folder = run.name = "run";
  run.lines = {metrics_at(5, "validation", 1)};
  run.lines[0].confusion = {{3, 1}, {0, 0}};
  const std::string page = report::page(std::array{run});
  EXPECT_NE(page.find("validation, step 5"), std::string::npos);
  EXPECT_NE(page.find(">3</td>"), std::string::npos);
  EXPECT_NE(page.find(">75.0 %</td>"), std::string::npos);
  EXPECT_EQ(page.find("nan"), std::string::npos) << "a class without samples";
  expect_well_formed(page);
}

class Report : public SmallRun {
 protected:
  std::string page() const { return read_file(folder_.file("report.html")); }
};

TEST_F(Report, OfARunWithSamples) {
  expect(lockstep("fit job.yaml --output run --set log_every=1"), Exit::ok);
  expect(lockstep("fit job.yaml --output other --set hyperparameters.optimizer.lr=0.5"), Exit::ok);
  ASSERT_EQ(shell("mkdir run/samples").code, 0);
  for (int i = 1; i <= 9; ++i)
    write_png(folder_.file(fmt::format("run/samples/step-{}.png", i)), {1, 2, 3, std::vector<uint8_t>(6)});
  const Outcome o = lockstep("report run other");
  expect(o, Exit::ok, "report.html");
  const std::string html = page();
  expect_well_formed(html);
  EXPECT_EQ(occurrences(html, "<figure class=\"chart\">"), 6u);
  EXPECT_NE(html.find("hyperparameters.<wbr>optimizer.<wbr>lr</th><td class=\"long\">0.01</td><td "
                      "class=\"long\">0.5</td>"),
            std::string::npos);
  EXPECT_EQ(occurrences(html, "data:image/png;base64,iVBORw0KGgo"), report::kMostGrids);
  EXPECT_NE(html.find("6 of 9"), std::string::npos);
  for (const char* shown :
       {"step-1.png", "step-9.png", "width=\"3\" height=\"2\"", "4 of 4", "completed", "conv2d"})
    EXPECT_NE(html.find(shown), std::string::npos) << shown;
  EXPECT_EQ(occurrences(html, "class=\"matrix\""), 2u);
  // Alone.
  for (const char* outside : {"http:", "https:", "src=\"/", "<script", "<link", "@import", "url("})
    EXPECT_EQ(html.find(outside), std::string::npos) << outside;
}

TEST_F(Report, BadInput) {
  expect(lockstep("report"), Exit::usage, "RUN is missing");
  expect(lockstep("report 1 2 3 4 5 6 7 8 9"), Exit::usage, "9 runs", "8 at most");
  expect(lockstep("report nowhere"), Exit::no_input, "E_RUN_NONE", "nowhere");
  ASSERT_EQ(shell("mkdir empty").code, 0);
  expect(lockstep("report empty"), Exit::no_input, "E_RUN_NONE", "no job.yaml");
  expect(lockstep("fit job.yaml --output run"), Exit::ok);
  expect(lockstep("report run --out none/x.html"), Exit::cannot_create, "none");
  const auto damage = [&](const std::string& name, const std::string& text, const auto&... words) {
    const std::string path = folder_.file("run/" + name), before = is_there(path) ? read_file(path) : "";
    write_file(path, text);
    expect(lockstep("report run"), words...);
    write_file(path, before);
  };
  damage("metrics.jsonl", "{}\n", Exit::data, "metrics.jsonl:1", "step");
  damage("plan.json", "{", Exit::data, "plan.json");
  damage("plan.json", "{\"ranks\": \"x\"}", Exit::data, "plan.json", "ranks");
  damage("status.json", "[]", Exit::data, "E_STATUS");
  damage("model.json", "{\"format\": 1}", Exit::data, "model.json:1");
  damage("job.yaml", "a: [\n", Exit::config, "job.yaml:");
  EXPECT_EQ(lockstep("report run").code, 0) << "all is whole again";
  ASSERT_EQ(shell("mkdir run/samples").code, 0);
  damage("samples/a.png", "no picture", Exit::data, "samples/a.png");
  EXPECT_FALSE(is_there(folder_.file("none")));
}

}  // namespace
}  // namespace lockstep::testing
