//! The layers: which room of `src/` may use which. ARCHITECTURE.md has the table; this test reads it, so the two cannot
//! differ. Imports are read from the code itself, tests left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Attribute, Item, ItemMod, UseTree,
    visit::{self, Visit},
};

/// A module's path below the crate: `["model", "op"]`.
type Module = Vec<String>;

/// Who uses whom, each with the file that shows it.
type Arrows = BTreeMap<(Module, Module), PathBuf>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every source file of the crate, parsed, with its module.
fn sources() -> BTreeMap<Module, (PathBuf, syn::File)> {
    fn walk(folder: &Path, module: &[String], found: &mut BTreeMap<Module, (PathBuf, syn::File)>) {
        for entry in fs::read_dir(folder).expect("a folder of src/") {
            let path = entry.expect("an entry").path();
            let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
            if path.is_dir() {
                walk(&path, &[module, &[name]].concat(), found);
            } else if path.extension().is_some_and(|extension| extension == "rs") && name != "tests" {
                let module = if matches!(&*name, "mod" | "lib") { module.to_vec() } else { [module, &[name]].concat() };
                let text = fs::read_to_string(&path).expect("a source file");
                found.insert(module, (path, syn::parse_file(&text).expect("it compiles, so it parses")));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&root().join("src"), &[], &mut found);
    found.remove(&vec!["main".to_owned()]);
    found
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
    })
}

/// Paths that begin in the crate, of one file.
#[derive(Default)]
struct Paths(Vec<Vec<String>>);

impl Paths {
    fn tree(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: String| [before, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.tree(&path.tree, &with(path.ident.to_string())),
            UseTree::Name(name) => self.0.push(with(name.ident.to_string())),
            UseTree::Rename(rename) => self.0.push(with(rename.ident.to_string())),
            UseTree::Glob(_) => self.0.push(before.to_vec()),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree, before)),
        }
    }
}

impl Visit<'_> for Paths {
    fn visit_item_mod(&mut self, module: &ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &syn::ItemUse) {
        self.tree(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &syn::Path) {
        self.0.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

/// What a folder's `mod.rs` re-exports from its children: name -> child.
fn reexports(file: &syn::File) -> BTreeMap<String, String> {
    let mut paths = Vec::new();
    for item in &file.items {
        if let Item::Use(item) = item
            && !matches!(item.vis, syn::Visibility::Inherited)
        {
            let mut found = Paths::default();
            found.tree(&item.tree, &[]);
            paths.extend(found.0);
        }
    }
    let last = |path: Vec<String>| match &path[..] {
        [first, child, .., name] if first == "self" => Some((name.clone(), child.clone())),
        [child, .., name] => Some((name.clone(), child.clone())),
        _ => None,
    };
    paths.into_iter().filter_map(last).collect()
}

/// Every arrow between two modules of the crate, none of which is above the other.
fn arrows() -> Arrows {
    let sources = sources();
    let reexported: BTreeMap<_, _> = sources.iter().map(|(module, (_, file))| (module, reexports(file))).collect();
    let mut arrows = Arrows::new();
    for (module, (path, file)) in &sources {
        let mut paths = Paths::default();
        paths.visit_file(file);
        for used in paths.0 {
            let ups = used.iter().take_while(|name| *name == "super").count();
            let (start, rest) = match used.first().map(String::as_str) {
                Some("crate") => (Vec::new(), &used[1..]),
                Some("self") => (module.clone(), &used[1..]),
                Some("super") => (module[..module.len().saturating_sub(ups)].to_vec(), &used[ups..]),
                _ => continue,
            };
            let mut target = start;
            for name in rest {
                let deeper = [&target[..], std::slice::from_ref(name)].concat();
                let child = reexported.get(&target).and_then(|names| names.get(name));
                let behind = child.map(|child| [&target[..], std::slice::from_ref(child)].concat());
                match [Some(deeper), behind].into_iter().flatten().find(|module| sources.contains_key(module)) {
                    Some(found) => target = found,
                    None => break,
                }
            }
            if !target.starts_with(module) && !module.starts_with(&target) {
                arrows.entry((module.clone(), target)).or_insert_with(|| path.clone());
            }
        }
    }
    arrows
}

/// The table of ARCHITECTURE.md: `| room | may use | ... |` under the heading "Layers".
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let section = text.split("\n## Layers\n").nth(1).expect("a section `Layers`").split("\n## ").next().expect("text");
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let mut table = BTreeMap::new();
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').collect();
        for room in names(cells[0]) {
            table.insert(room, names(cells[1]).into_iter().collect());
        }
    }
    table
}

/// A circle in a graph, if it has one.
fn circle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        node: &str,
        graph: &BTreeMap<String, BTreeSet<String>>,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|on| on == node) {
            return Some(path[start..].to_vec());
        }
        if !done.insert(node.to_owned()) {
            return None;
        }
        path.push(node.to_owned());
        let found = graph.get(node).into_iter().flatten().find_map(|next| visit(next, graph, path, done));
        path.pop();
        found
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|node| visit(node, graph, &mut Vec::new(), &mut done))
}

#[test]
fn the_code_uses_what_the_table_allows_and_the_table_says_no_more() {
    let table = table();
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for ((from, to), path) in arrows() {
        let (Some(from), Some(to)) = (from.first(), to.first()) else { continue };
        if from == to {
            continue;
        }
        let allowed = table.get(from).unwrap_or_else(|| panic!("`{from}` is not in the table of ARCHITECTURE.md"));
        assert!(allowed.contains(to), "`{from}` uses `{to}` ({}), which the table does not allow", path.display());
        used.entry(from.clone()).or_default().insert(to.clone());
    }
    for (room, allowed) in &table {
        let there = root().join("src").join(room).is_dir() || root().join("src").join(format!("{room}.rs")).is_file();
        assert!(there, "the table has `{room}`, which src/ does not have");
        let used = used.remove(room).unwrap_or_default();
        let unused: Vec<_> = allowed.difference(&used).collect();
        assert!(unused.is_empty(), "the table lets `{room}` use {unused:?}, which it does not use");
    }
    assert_eq!(circle(&table), None, "the table has a circle");
}

#[test]
fn no_folder_has_a_circle_between_its_modules() {
    let mut folders: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for ((from, to), _) in arrows() {
        let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
        let siblings = folders.entry(from[..shared].to_vec()).or_default();
        siblings.entry(from[shared].clone()).or_default().insert(to[shared].clone());
    }
    let circles: Vec<_> = folders.iter().filter_map(|(folder, siblings)| Some((folder, circle(siblings)?))).collect();
    assert!(circles.is_empty(), "circles, by folder of src/: {circles:?}");
}

#[test]
fn a_file_is_one_idea() {
    // Longer files are two ideas. A test of one thing may need many cases.
    const MOST: usize = 450;
    for (_, (path, _)) in sources() {
        let lines = fs::read_to_string(&path).expect("a source file").lines().count();
        assert!(lines <= MOST, "{} has {lines} lines", path.display());
    }
}
