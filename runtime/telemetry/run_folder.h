// SPDX-License-Identifier: Apache-2.0
// The run folder: everything one run leaves.
//
//   job.yaml          the resolved job; `lockstep fit job.yaml` repeats the run
//   plan.json         the plan
//   metrics.jsonl     one object a line
//   tensorboard/      event files
//   status.json       state, exit code, rank, step, op, cause; replaced atomically
//   log.txt
//   checkpoints/, model.safetensors
//   .lock             locked (FileLock) by rank 0 while the run is alive
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "kernels/core/error.h"
#include "runtime/files/file_lock.h"

namespace lockstep {

class RunFolder {
 public:
  // A new folder <dir>/<job_name>-001, -002, ... (one above the highest there is, so that the newest run is
  // always the highest), or exactly `exact` when not empty. Creates and locks it. `exact` already holding a
  // run is refused (73) with the hint to use --resume. Errors: cannot_create (73), also when another job
  // holds the lock (naming its pid and host).
  static RunFolder create(const std::string& dir, const std::string& job_name, const std::string& exact);
  // For --resume: `exact`, or the highest-numbered run of the job that exists. no_input (66) if there is
  // none; a folder whose run died before it wrote anything is none. Locks it and removes temporary files of
  // the run that died.
  static RunFolder open(const std::string& dir, const std::string& job_name, const std::string& exact);
  // Whether open() would find a run.
  static bool exists(const std::string& dir, const std::string& job_name, const std::string& exact);
  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  // The outermost folder that create() has made; "": the run's own folder was there before.
  const std::string& made() const { return made_; }

 private:
  RunFolder(std::string path, std::string made, FileLock lock)
      : path_(std::move(path)), made_(std::move(made)), lock_(std::move(lock)) {}
  std::string path_, made_;
  FileLock lock_;
};

// Of a new run that has not come to its first step: removes what it has written, and the folders that were made for it,
// from the outermost one on (RunFolder::made), where nothing else lies in them.
void discard_run(const std::string& path, const std::string& made);

// status.json. write_status: io (74), cannot_create (73). state: "running", "completed", "interrupted"
// (resume), "failed".
struct Status {
  std::string state = "running";
  int code = 0;
  int rank = -1;  // the rank that failed, where one did
  int64_t step = 0, steps = 0;
  int64_t skipped_images = 0;  // damaged ones that on_bad_image: skip left out, of all sets together
  std::string op, error_id, cause, hint;
  std::string time;  // UTC, ISO 8601; filled by write_status
};
void write_status(const std::string& run_folder, const Status& status);
Status read_status(const std::string& run_folder);  // no_input (66), data (65)
// The same where a damaged or missing one says nothing.
Status last_status(const std::string& run_folder);
// `before`, ended by `e`: at the step, with the rank and in the op that its places name, or else at `step`, by no rank.
Status failed(Status before, const Error& e, int64_t step);

}  // namespace lockstep
