// SPDX-License-Identifier: Apache-2.0
#include "launch/job/keys.h"

namespace lockstep::job {

#define FIELD(T, member) [](void* object) -> Slot { return &static_cast<T*>(object)->member; }

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr Range at_least(double min) { return {min, kInfinity}; }
constexpr Range kFraction = {0, 1, false, true};  // [0, 1)

// The optimizer's lr and decay become fp32; a bound far inside its range catches slips such as a missing
// minus.
constexpr Range kScale = {0, 1e6};

void append(Table& table, const Table& more) { table.insert(table.end(), more.begin(), more.end()); }

Table make_job_keys() {
  const When sgd = {"hyperparameters.optimizer.name", {"sgd"}};
  const When adam = {"hyperparameters.optimizer.name", {"adam", "adamw"}};
  const When ema = {"hyperparameters.ema.decay", {}};
  const When ema_warmup = {"hyperparameters.ema.warmup", {"true"}};
  const When step = {"hyperparameters.lr_schedule.name", {"step"}};
  const When classification = {"objective.name", {"classification"}};
  const When decay = {"hyperparameters.lr_schedule.name", {"cosine", "linear"}};
  const When one_cycle = {"hyperparameters.lr_schedule.name", {"one_cycle"}};
  const When warmup = {"hyperparameters.lr_schedule.name", {"constant", "step", "cosine", "linear"}};
  Table table = {
      {.path = "job_name",
       .slot = FIELD(Job, job_name),
       .help = "Names the run folder: letters, digits, '.', '_', '-'.",
       .example = "mnist-cnn",
       .text = Text::name,
       .absent = "the file's name",
       .change = Change::free},
      {.path = "instance_count",
       .slot = FIELD(Job, instance_count),
       .help = "Ranks: processes that train together, each on its share of every batch.",
       .example = "2",
       .range = {1, 65536},
       .change = Change::free},
      {.path = "hosts",
       .slot = FIELD(Job, hosts),
       .help = "Machines to start ranks on, as host or host:slots. Not together with hostfile.",
       .example = "[\"node1:4\", \"node2:4\"]",
       .absent = "this machine",
       .change = Change::free},
      {.path = "hostfile",
       .slot = FIELD(Job, hostfile),
       .help = "Open MPI hostfile with the machines to start ranks on. Not together with hosts.",
       .example = "cluster.txt",
       .text = Text::path,
       .absent = "this machine",
       .change = Change::free},
      {.path = "network_interface",
       .slot = FIELD(Job, network_interface),
       .help = "The network between hosts, as an interface's name or a subnet; for MPI and NCCL. Needed "
               "where that of the hosts' own names is not the one.",
       .example = "192.168.1.0/24",
       .absent = "that of the hosts' addresses, where they show one; NCCL's choice",
       .change = Change::free},
      {.path = "backend",
       .slot = FIELD(Job, backend),
       .help = "Who carries the gradients: mpi between CPUs, nccl between GPUs, auto by device. gloo is an "
               "alias of mpi. Also accepted under hyperparameters.",
       .example = "mpi",
       .choices = {"auto", "mpi", "gloo", "nccl"},
       .change = Change::free},
      {.path = "gradient_precision",
       .slot = FIELD(Job, gradient_precision),
       .help = "What gradients travel between GPUs as, with backend nccl only: bf16 rounds them before NCCL "
               "sums them, which halves the traffic; the sums then vary with the rank count more than "
               "fp32's do.",
       .example = "bf16",
       .choices = {"fp32", "bf16"}},
      {.path = "device",
       .slot = FIELD(Job, device),
       .help = "Where the math runs. simt runs the CUDA kernels on the CPU, for tests.",
       .example = "cpu",
       .choices = {"auto", "cpu", "cuda", "simt"},
       .change = Change::free},
      {.path = "threads_per_rank",
       .slot = FIELD(Job, threads_per_rank),
       .help = "Threads of each rank; 0: usable cores (affinity and cgroup quota) / ranks on the host.",
       .example = "2",
       .range = {0, 1024},
       .change = Change::without_shards},
      {.path = "deadline_seconds",
       .slot = FIELD(Job, deadline_seconds),
       .help = "A collective that takes longer has lost a peer: the job ends with exit code 75.",
       .example = "60",
       .range = {0.1, 1e6},
       .change = Change::free},
      {.path = "disk_deadline_seconds",
       .slot = FIELD(Job, disk_deadline_seconds),
       .help = "How long ranks wait for one that answers and reads or writes a disk, for a checkpoint "
               "say; never less than deadline_seconds.",
       .example = "7200",
       .range = {0.1, 1e6},
       .change = Change::free},
      {.path = "start_deadline_seconds",
       .slot = FIELD(Job, start_deadline_seconds),
       .help =
           "How long `lockstep fit` waits for its ranks to meet, for each host: then the job ends with exit "
           "code 75 and says who is missing.",
       .example = "300",
       .range = {0.1, 1e6},
       .change = Change::free},
  };
  append(table, model_keys());
  append(
      table,
      {
          {.path = "inputs.training",
           .slot = FIELD(Job, training),
           .help = "The samples to train on.",
           .example = "{dataset: mnist, path: data/mnist}",
           .required = true},
          {.path = "inputs.validation",
           .slot = FIELD(Job, validation),
           .help = "Samples to validate on after each epoch; of a set that has one the test half. Not "
                   "together with validation_fraction.",
           .example = "{dataset: image_folder, path: data/held_out}",
           .absent = "validation_fraction"},
          {.path = "inputs.test",
           .slot = FIELD(Job, test),
           .help = "Samples for the test at the end.",
           .example = "{dataset: mnist, path: data/mnist, limit: 1000}",
           .absent = "the test half of a training set that has one (mnist, fashion_mnist, cifar10, "
                     "captioned_digits)"},
          {.path = "validation_fraction",
           .slot = FIELD(Job, validation_fraction),
           .help = "Share of the training samples held out for validation, drawn by seed.",
           .example = "0.1",
           .range = kFraction,
           .absent = "none held out"},
          {.path = "hyperparameters.epochs",
           .slot = FIELD(Job, hyperparameters.epochs),
           .help = "Passes over the training samples. Either this or steps.",
           .example = "3",
           .range = {1, 1e6},
           .absent = "steps",
           .change = Change::free},
          {.path = "hyperparameters.steps",
           .slot = FIELD(Job, hyperparameters.steps),
           .help = "Optimizer steps. Either this or epochs.",
           .example = "1000",
           .range = {1, 1e12},
           .absent = "epochs",
           .change = Change::free},
          {.path = "hyperparameters.global_batch_size",
           .slot = FIELD(Job, hyperparameters.global_batch_size),
           .help =
               "Samples of one optimizer step over all ranks and accumulation steps together; never scaled "
               "by the number of ranks.",
           .example = "128",
           .range = {1, 1 << 24},
           .required = true},
          {.path = "hyperparameters.gradient_accumulation",
           .slot = FIELD(Job, hyperparameters.gradient_accumulation),
           .help = "Parts that a batch is computed in, one after the other: less memory, the same gradient. "
                   "Batch-norm statistics then cover one part.",
           .example = "4",
           .range = {1, 65536}},
          {.path = "hyperparameters.shards",
           .slot = FIELD(Job, hyperparameters.shards),
           .help = "Parts that every batch is computed in, a power of two, whatever the number of ranks that "
                   "share "
                   "them: the weights then get the same bits with 1, 2, 4, ... up to so many ranks. Needs "
                   "threads_per_rank; not with batch norm.",
           .example = "8",
           .range = {1, 1024},
           .absent = "a part a rank"},
          {.path = "hyperparameters.optimizer.name",
           .slot = FIELD(Job, hyperparameters.optimizer.name),
           .help = "As PyTorch defines them.",
           .example = "sgd",
           .choices = {"sgd", "adam", "adamw"}},
          {.path = "hyperparameters.optimizer.lr",
           .slot = FIELD(Job, hyperparameters.optimizer.lr),
           .help = "Learning rate before the schedule.",
           .example = "0.05",
           .range = kScale,
           .required = true},
          {.path = "hyperparameters.optimizer.momentum",
           .slot = FIELD(Job, hyperparameters.optimizer.momentum),
           .help = "Share of the last update carried into the next.",
           .example = "0.9",
           .range = kFraction,
           .when = sgd},
          {.path = "hyperparameters.optimizer.nesterov",
           .slot = FIELD(Job, hyperparameters.optimizer.nesterov),
           .help = "Nesterov's momentum; needs momentum above 0 and dampening 0.",
           .example = "true",
           .when = sgd},
          {.path = "hyperparameters.optimizer.dampening",
           .slot = FIELD(Job, hyperparameters.optimizer.dampening),
           .help = "Dampening of the gradient that enters the momentum.",
           .example = "0.1",
           .range = {0, 1},
           .when = sgd},
          {.path = "hyperparameters.optimizer.weight_decay",
           .slot = FIELD(Job, hyperparameters.optimizer.weight_decay),
           .help = "L2 penalty (sgd, adam) or decoupled decay (adamw, where leaving it out means 0.01).",
           .example = "0.0005",
           .range = kScale},
          {.path = "hyperparameters.optimizer.betas",
           .slot = [](void* object) -> Slot {
             OptimizerConfig& optimizer = static_cast<Job*>(object)->hyperparameters.optimizer;
             return Betas{&optimizer.beta1, &optimizer.beta2};
           },
           .help = "Decay of the running mean and of the running square.",
           .example = "[0.9, 0.99]",
           .range = kFraction,
           .when = adam},
          {.path = "hyperparameters.optimizer.eps",
           .slot = FIELD(Job, hyperparameters.optimizer.eps),
           .help = "Added to the root of the running square.",
           .example = "1e-7",
           .range = {0, 1, true, false},
           .when = adam},
          {.path = "hyperparameters.lr_schedule.name",
           .slot = FIELD(Job, hyperparameters.lr_schedule.name),
           .help = "How lr changes over the steps. `lr_schedule: cosine` is short for {name: cosine}.",
           .example = "cosine",
           .choices = {"constant", "step", "cosine", "linear", "one_cycle"},
           .short_form = true},
          {.path = "hyperparameters.lr_schedule.warmup_steps",
           .slot = FIELD(Job, hyperparameters.lr_schedule.warmup_steps),
           .help = "Steps over which lr first rises linearly to its full value.",
           .example = "100",
           .range = {0, 1e12},
           .when = warmup},
          {.path = "hyperparameters.lr_schedule.step_size",
           .slot = FIELD(Job, hyperparameters.lr_schedule.step_size),
           .help = "lr is multiplied by gamma every so many steps; step needs it.",
           .example = "500",
           .range = {1, 1e12},
           .absent = "nothing: step needs it",
           .when = step},
          {.path = "hyperparameters.lr_schedule.gamma",
           .slot = FIELD(Job, hyperparameters.lr_schedule.gamma),
           .help = "What lr is multiplied by.",
           .example = "0.5",
           .range = {0, 1e6, true, false},
           .when = step},
          {.path = "hyperparameters.lr_schedule.final_lr_scale",
           .slot = FIELD(Job, hyperparameters.lr_schedule.final_lr_scale),
           .help = "lr ends at this share of itself.",
           .example = "0.01",
           .range = {0, 1},
           .when = decay},
          {.path = "hyperparameters.lr_schedule.pct_start",
           .slot = FIELD(Job, hyperparameters.lr_schedule.pct_start),
           .help = "Share of the steps over which lr rises. As PyTorch's OneCycleLR, momentum left alone.",
           .example = "0.25",
           .range = {0, 1},
           .when = one_cycle},
          {.path = "hyperparameters.lr_schedule.anneal",
           .slot = FIELD(Job, hyperparameters.lr_schedule.anneal),
           .help = "How it rises and falls.",
           .example = "linear",
           .choices = {"cos", "linear"},
           .when = one_cycle},
          {.path = "hyperparameters.lr_schedule.div_factor",
           .slot = FIELD(Job, hyperparameters.lr_schedule.div_factor),
           .help = "It begins at lr divided by this.",
           .example = "10",
           .range = {1, 1e12},
           .when = one_cycle},
          {.path = "hyperparameters.lr_schedule.final_div_factor",
           .slot = FIELD(Job, hyperparameters.lr_schedule.final_div_factor),
           .help = "It ends at its beginning divided by this.",
           .example = "100",
           .range = {1, 1e12},
           .when = one_cycle},
          {.path = "hyperparameters.clip_grad_norm",
           .slot = FIELD(Job, hyperparameters.clip_grad_norm),
           .help = "Gradients are scaled down to this L2 norm over all parameters; 0: off.",
           .example = "1.0",
           .range = {0, 1e30}},
          {.path = "hyperparameters.ema.decay",
           .slot = FIELD(Job, hyperparameters.ema.decay),
           .help = "Largest decay of a moving average of the parameters, kept as diffusers' EMAModel does. "
                   "Validation, test and model.safetensors use the average.",
           .example = "0.999",
           .range = kFraction,
           .absent = "no average"},
          {.path = "hyperparameters.ema.min_decay",
           .slot = FIELD(Job, hyperparameters.ema.min_decay),
           .help = "Its smallest decay.",
           .example = "0.5",
           .range = kFraction,
           .when = ema},
          {.path = "hyperparameters.ema.update_after_step",
           .slot = FIELD(Job, hyperparameters.ema.update_after_step),
           .help = "Steps before it starts: until then the average is the parameters themselves.",
           .example = "100",
           .range = {0, 1e12},
           .when = ema},
          {.path = "hyperparameters.ema.warmup",
           .slot = FIELD(Job, hyperparameters.ema.warmup),
           .help = "Let the decay of step n rise as 1 - (1 + n / inv_gamma)^-power; false: as (1 + n) / (10 "
                   "+ n).",
           .example = "false",
           .when = ema},
          {.path = "hyperparameters.ema.power",
           .slot = FIELD(Job, hyperparameters.ema.power),
           .help = "2/3 suits a million steps and more, 3/4 fewer.",
           .example = "0.75",
           .range = {0, 100, true, false},
           .when = ema_warmup},
          {.path = "hyperparameters.ema.inv_gamma",
           .slot = FIELD(Job, hyperparameters.ema.inv_gamma),
           .help = "Steps that the rise takes about.",
           .example = "10",
           .range = {0, 1e6, true, false},
           .when = ema_warmup},
          {.path = "hyperparameters.precision",
           .slot = FIELD(Job, hyperparameters.precision),
           .help = "Of activations and their gradients: bf16 keeps parameters, statistics, losses and sums "
                   "in fp32.",
           .example = "bf16",
           .choices = {"fp32", "bf16"}},
          {.path = "hyperparameters.loss",
           .slot = FIELD(Job, hyperparameters.loss),
           .help = "cross_entropy takes logits; nll takes the log-probabilities of a net that ends in "
                   "log_softmax.",
           .example = "cross_entropy",
           .choices = {"cross_entropy", "nll"},
           .when = classification},
          {.path = "hyperparameters.label_smoothing",
           .slot = FIELD(Job, hyperparameters.label_smoothing),
           .help = "Share of the target spread evenly over all classes.",
           .example = "0.1",
           .range = kFraction,
           .when = classification},
          {.path = "hyperparameters.seed",
           .slot = FIELD(Job, hyperparameters.seed),
           .help = "Of everything random: weights, order, dropout. Independent of the number of ranks.",
           .example = "1",
           .range = at_least(0)},
          {.path = "hyperparameters.shuffle",
           .slot = FIELD(Job, hyperparameters.shuffle),
           .help = "A new order of the samples every epoch.",
           .example = "false"},
          {.path = "hyperparameters.drop_last",
           .slot = FIELD(Job, hyperparameters.drop_last),
           .help = "Leave out an epoch's last batch where it is short.",
           .example = "true"},
          {.path = "hyperparameters.param_groups",
           .slot = FIELD(Job, hyperparameters.param_groups),
           .help =
               "Other settings for some tensors; the first group whose match fits a tensor's name decides.",
           .example = "[{match: \"*.bias\", weight_decay: 0}]",
           .absent = "one setting for all"},
          {.path = "hyperparameters.recompute",
           .slot = FIELD(Job, hyperparameters.recompute),
           .help = "Compute activations again in the backward pass instead of keeping them: of all residual "
                   "blocks, or (auto) of as few as the memory budget asks for. The results keep their bits.",
           .example = "blocks",
           .choices = {"none", "blocks", "auto"},
           .change = Change::free},
          {.path = "hyperparameters.memory_budget_mb",
           .slot = FIELD(Job, hyperparameters.memory_budget_mb),
           .help = "What a rank's tensors may take, in 10^6 bytes.",
           .example = "2000",
           .range = {0, 1e9, true, false},
           .absent = "none",
           .when = {"hyperparameters.recompute", {"auto"}},
           .change = Change::free},
          {.path = "checkpoint.every_steps",
           .slot = FIELD(Job, checkpoint.every_steps),
           .help = "A checkpoint every so many steps. Not together with every_epochs.",
           .example = "500",
           .range = {1, 1e12},
           .absent = "at the end only",
           .change = Change::free},
          {.path = "checkpoint.every_epochs",
           .slot = FIELD(Job, checkpoint.every_epochs),
           .help = "A checkpoint every so many epochs. Not together with every_steps.",
           .example = "1",
           .range = {1, 1e6},
           .absent = "at the end only",
           .change = Change::free},
          {.path = "checkpoint.keep",
           .slot = FIELD(Job, checkpoint.keep),
           .help = "Newest checkpoints that are kept; 0: all.",
           .example = "3",
           .range = {0, 1e6},
           .change = Change::free},
          {.path = "checkpoint.best_by",
           .slot = FIELD(Job, checkpoint.best_by),
           .help = "Also keep the checkpoint that is best by this; needs validation samples.",
           .example = "validation_accuracy",
           .choices = {"validation_loss", "validation_accuracy"},
           .absent = "none"},
          {.path = "log_every",
           .slot = FIELD(Job, log_every),
           .help = "Steps between training lines in metrics.jsonl.",
           .example = "1",
           .range = {1, 1e12},
           .change = Change::free},
          {.path = "output.dir",
           .slot = FIELD(Job, output_dir),
           .help = "Folder that run folders are made in, relative to the current directory.",
           .example = "runs",
           .text = Text::cwd_path,
           .change = Change::free},
      });
  append(table, diffusion_keys());
  append(table, stop_keys());
  return table;
}

}  // namespace

const Table& job_keys() {
  static const Table table = make_job_keys();
  return table;
}

const Table& group_keys() {
  static const Table table = {
      {.path = "match",
       .slot = FIELD(ParamGroupConfig, match),
       .help = "Glob over tensor names (* and ?).",
       .example = "\"*.bias\"",
       .required = true},
      {.path = "lr_scale",
       .slot = FIELD(ParamGroupConfig, lr_scale),
       .help = "Multiplies lr.",
       .example = "0.1",
       .range = kScale},
      {.path = "weight_decay",
       .slot = FIELD(ParamGroupConfig, weight_decay),
       .help = "Instead of the optimizer's.",
       .example = "0",
       .range = kScale,
       .absent = "the optimizer's"},
      {.path = "frozen",
       .slot = FIELD(ParamGroupConfig, frozen),
       .help = "The tensors keep their values.",
       .example = "true"},
  };
  return table;
}

const std::vector<Exclusive>& exclusive_keys() {
  static const std::vector<Exclusive> rows = {
      {"hyperparameters.epochs", "hyperparameters.steps", true},
      {"model.name", "model.layers", true},
      {"hosts", "hostfile", false},
      {"checkpoint.every_steps", "checkpoint.every_epochs", false},
      {"inputs.validation", "validation_fraction", false},
      {"stop.at", "stop.patience", false},
      {"inputs.training.captions.column", "inputs.training.captions.template", false},
      {"inputs.validation.captions.column", "inputs.validation.captions.template", false},
      {"inputs.test.captions.column", "inputs.test.captions.template", false},
      {"stop.every_steps", "stop.every_epochs", false},
  };
  return rows;
}

const std::vector<RefusedKey>& refused_keys() {
  static const std::vector<RefusedKey> rows = [] {
    std::vector<RefusedKey> all;
    all.push_back({"augment", "E_JOB_UNKNOWN_KEY", "belongs to inputs.training only"});
    for (const char* name : {"batch_size", "train_batch_size", "per_device_batch_size"})
      all.push_back(
          {name, "E_JOB_UNKNOWN_KEY",
           "per rank or over all ranks? Say hyperparameters.global_batch_size: samples per optimizer step "
           "over all ranks (per rank × instance_count)"});
    return all;
  }();
  return rows;
}

}  // namespace lockstep::job
