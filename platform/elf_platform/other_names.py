"""What other tools call our settings, for whoever writes those names here; they are refused with ours."""

from collections.abc import Collection

_OURS = {
    "train.steps": "steps max_steps num_steps train_steps training_steps total_steps max_train_steps num_training_steps iterations"
    " num_iterations max_iters max_iterations train_iters total_iters epochs num_epochs max_epochs num_train_epochs n_epochs",
    "train.global_batch": "batch batch_size train_batch_size global_batch_size total_batch_size per_gpu_batch_size",
    "train.micro_batch": "micro_batch micro_batch_size device_batch_size per_device_batch_size per_device_train_batch_size"
    " gradient_accumulation_steps grad_accum accumulate_grad_batches",
    "train.workers": "num_gpus gpus n_gpus nproc_per_node devices num_devices num_workers world_size num_processes",
    "train.precision": "dtype bf16 fp16 fp32 mixed_precision amp torch_dtype",
    "train.gpu": "device cuda use_gpu accelerator no_cuda",
    "train.activation_checkpointing": "gradient_checkpointing grad_checkpoint use_checkpoint recompute",
    "train.valid_every": "eval_every eval_interval eval_steps eval_freq val_check_interval val_every validate_every",
    "train.checkpoint_every": "save_every save_interval save_steps save_freq ckpt_every checkpoint_interval checkpoint_freq",
    "train.log_every": "log_interval log_freq logging_steps log_every_n_steps",
    "train.keep": "save_total_limit keep_last max_checkpoints",
    "optim.lr": "learning_rate max_lr peak_lr base_lr init_lr lr_max",
    "optim.final_lr_ratio": "min_lr lr_min final_lr end_lr",
    "optim.warmup_steps": "warmup warmup_iters num_warmup_steps warmup_ratio lr_warmup_steps warmup_epochs",
    "optim.weight_decay": "wd",
    "optim.clip_norm": "grad_clip max_grad_norm gradient_clip_val clip_grad clip_grad_norm grad_norm_clip gradient_clipping",
    "optim.name": "optimizer optimiser optim_name",
    "optim.decay": "lr_scheduler lr_scheduler_type scheduler lr_decay_style",
    "optim.ema_decay": "ema ema_rate use_ema",
    "optim.betas": "beta1 beta2 adam_beta1 adam_beta2",
    "data.paths": "data dataset datasets dataset_name dataset_path data_dir data_path train_file train_data input corpus"
    " text_file data_files",
    "data.length": "context context_length context_window seq_len seq_length sequence_length max_seq_len max_seq_length max_length max_len"
    " block_size model_max_length n_ctx max_position_embeddings",
    "data.tokenizer.vocab_size": "n_vocab vocabulary vocabulary_size",
    "data.tokenizer.source": "tokenizer tokenizer_name tokenizer_path tokenizer_type",
    "network.depth": "n_layer n_layers num_layers num_hidden_layers layers n_blocks",
    "network.hidden": "n_embd d_model hidden_size hidden_dim dim embed_dim embedding_dim width model_dim",
    "network.heads": "n_head n_heads num_heads num_attention_heads",
    "engine.zero": "zero_stage zero stage deepspeed_stage",
    "storage": "output_dir out_dir save_dir output output_path log_dir results_dir work_dir",
    "name": "run_name experiment_name exp_name wandb_run_name run_id",
    "tracking.uri": "mlflow_uri mlflow_tracking_uri tracking_uri",
    "seed": "random_seed manual_seed rng_seed global_seed",
    "sample.count": "num_samples n_samples",
    "sample.steps": "num_inference_steps sampling_steps sample_steps diffusion_steps nfe",
    "sample.cfg": "guidance_scale cfg_scale",
    "sample.top_p": "nucleus",
}
_SAMPLING = {
    "batch_size": "compute_batch", "device": "gpu", "dtype": "precision", "num_workers": "actors", "output_dir": "out",
    "input": "sources",
}
_NOTES = {
    "train.steps": ("epoch", "train.steps = epochs x rows / train.global_batch"),
    "train.micro_batch": ("acc", "rows per pass; the number of passes follows"),
    "optim.warmup_steps": ("ratio", "a number of steps"),
    "optim.final_lr_ratio": ("lr", "last learning rate over optim.lr"),
}


def our_name(key: str, known: Collection[str]) -> str:
    """Our name, among ``known``, for what other tools call ``key``, with a note where it is counted otherwise; empty if none."""
    word = key.rsplit(".", 1)[-1].lower()
    if (job := _SAMPLING.get(word)) and job in known:
        return job
    for ours, theirs in _OURS.items():
        if word not in theirs.split():
            continue
        for name in (ours, ours.rsplit(".", 1)[-1]):  # jobs have the last part alone
            if name in known and name != key:
                part, note = _NOTES.get(ours, ("-", ""))
                return f"{name} ({note})" if part in word else name
    return ""
