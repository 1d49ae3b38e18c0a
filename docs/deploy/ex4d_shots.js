// A job type of the render farm Flamenco: the shots of a file, each a task of `ex4d batch`. See docs/how-to/farms.md.
//
// Put it into the folder `scripts` beside flamenco-manager, define the variable {ex4d} in flamenco-manager.yaml, and add
// the task type ex4d to `task_types` in the flamenco-worker.yaml of the machines that have a GPU and ex4d.

const TASK_TYPE = "ex4d";

const JOB_TYPE = {
    label: "EX-4D Shots",
    description: "Previews and finals of footage from new cameras. In Blender, Send to Farm writes the file of shots.",
    settings: [
        {
            key: "shots_file", type: "string", subtype: "file_path", required: true, visible: "submission",
            eval: "C.scene.ex4d_farm.file",
            evalInfo: { showLinkButton: true, description: "Take the file that Send to Farm has written last" },
            description: "The .toml or .csv file of shots, where all workers find it",
        },
        {
            key: "shots", type: "string", required: true, visible: "submission",
            eval: "C.scene.ex4d_farm.shots",
            evalInfo: { showLinkButton: true, description: "Take the shots that Send to Farm has written last" },
            description: "Names of the shots to make, or their numbers in the file, with commas between them",
        },
        {
            key: "output_folder", type: "string", subtype: "dir_path", required: false, visible: "submission",
            default: "", description: "Folder of all takes; empty: beside the file, named as it",
        },
        {
            key: "ex4d", type: "string", required: true, visible: "hidden", default: "{ex4d}",
            description: "The command ex4d on the workers",
        },
    ],
};

function compileJob(job) {
    const settings = job.settings;
    const shots = settings.shots.split(",").map((name) => name.trim()).filter((name) => name);
    if (!shots.length) {
        throw "name at least one shot";
    }
    // Scenes first, in one task: tasks of one scene would wait for each other, each on a GPU.
    const scenes = batchTask(settings, "scenes", ["--scenes"].concat(only(shots)));
    job.addTask(scenes);
    for (const shot of shots) {
        const task = batchTask(settings, shot, only([shot]));
        task.addDependency(scenes);
        job.addTask(task);
    }
}

function only(shots) {
    return shots.map((shot) => `--only=${shot}`);
}

// What is finished is skipped, so a task may run again at any time, on any worker.
function batchTask(settings, name, options) {
    const task = author.Task(name, TASK_TYPE);
    const out = settings.output_folder ? [`--out=${settings.output_folder}`] : [];
    const args = ["batch", settings.shots_file].concat(out, options);
    task.addCommand(author.Command("exec", { exe: settings.ex4d, args: args }));
    return task;
}
